#!/usr/bin/env bash
# The MLflow server of sweeps: records in PostgreSQL, artifacts on an S3 API that only the server has keys of, a login for
# everybody. The database is brought up to date first, once, before the server's workers start.
#
# Needs the extra `cluster` of this project, and in the environment:
#   MLFLOW_BACKEND_STORE_URI        postgresql://USER:PASSWORD@HOST/DATABASE
#   MLFLOW_ARTIFACTS_DESTINATION    s3://BUCKET/PREFIX, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a role of the
#                                   machine, and MLFLOW_S3_ENDPOINT_URL where it is not Amazon's
#   MLFLOW_AUTH_ADMIN_PASSWORD      of the user `admin`, who is made at the first start; at least 12 characters
#   MLFLOW_FLASK_SERVER_SECRET_KEY  any long random text, the same at every start
#   MLFLOW_SERVER_ALLOWED_HOSTS     names that the server is called by, like mlflow.example.org:*,localhost:*
# and if you like:
#   MLFLOW_HOST (0.0.0.0), MLFLOW_PORT (5000), MLFLOW_WORKERS (4), MLFLOW_SERVER_CORS_ALLOWED_ORIGINS (none)
set -euo pipefail

for name in MLFLOW_BACKEND_STORE_URI MLFLOW_ARTIFACTS_DESTINATION MLFLOW_AUTH_ADMIN_PASSWORD \
  MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_SERVER_ALLOWED_HOSTS; do
  if [[ -z ${!name:-} ]]; then
    echo "$0: $name is not set; the top of this file says what it is" >&2
    exit 2
  fi
done

# Who may do what is kept in the same database; the file that says so holds its password.
umask 077
MLFLOW_AUTH_CONFIG_PATH=${HOME:-/tmp}/.drive-sweep-mlflow.ini
cat >"$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
database_uri = ${MLFLOW_BACKEND_STORE_URI//%/%%}
admin_username = admin
default_permission = READ
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# Without it every request waits for the hash of its password; a changed password counts after a minute.
auth_cache_ttl_seconds = 60
END
export MLFLOW_AUTH_CONFIG_PATH
export MLFLOW_DISABLE_TELEMETRY=true
# Eight processes that sweeps have no use for.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

# What holds a password is read from the environment, by MLflow too: everybody sees command lines. The login's tables are
# brought up to date by the server itself, before its workers start.
python -c 'import os, mlflow.db; mlflow.db.commands(["upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]])'

export MLFLOW_HOST="${MLFLOW_HOST:-0.0.0.0}" MLFLOW_WORKERS="${MLFLOW_WORKERS:-4}"
# With several workers and Python's own event loop every request would wait 40 ms (Nagle's algorithm stays on).
export MLFLOW_UVICORN_OPTS="--loop uvloop"
exec mlflow server --app-name basic-auth
