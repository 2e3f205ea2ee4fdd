"""Errors of MLflow, of SQLite and of the file system as a message with the fix."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import SetupError
from orchestrator.process.credentials import CREDENTIALS
from orchestrator.uris import redacted
from trainables.wording import one_line

ELSEWHERE = "or give another with --tracking-uri"
NOISE = re.compile(r"\[SQL: .*|\(Background on this error at: .*|<!doctype .*|<html.*|Stack trace.*", re.DOTALL | re.IGNORECASE)
STATUS = re.compile(r"error code (\d{3})|too many (\d{3}) error responses|status[ _]code:? (\d{3})", re.IGNORECASE)
LOGIN = f"export the login that it asks for as {CREDENTIALS[0]} and {CREDENTIALS[1]} (or {CREDENTIALS[2]})"
FULL = "make room on that disk"
FORBIDDEN = "make it writable for this user"
LOCKED = "end the process that holds its lock, or run this again later"

# The first pattern that matches the error's text has the fix.
FIXES = (
    (r"invalid host header|host header|dns rebinding", "start the server with --allowed-hosts that lists {host}"),
    (r"cross-origin|origin", "start the server with --cors-allowed-origins that lists this client"),
    (r"not authenticated|unauthorized|password authentication failed|access denied for user", LOGIN),
    (
        r"permission denied\W+error code 403|permission_denied",
        "ask its owner for the right to edit this experiment, or " + LOGIN,
    ),
    (r"wrong_version_number|wrong version number|http request to https|record layer failure", "write http:// if it has no TLS"),
    (
        r"certificate|sslerror|ssl:",
        "export MLFLOW_TRACKING_SERVER_CERT_PATH, a file with the certificate of the authority that signed the server's",
    ),
    (r"proxyerror|cannot connect to proxy|tunnel connection failed", "correct {proxy}, or list {host} in NO_PROXY"),
    (
        r"name or service not known|name resolution|nameresolution|getaddrinfo|nodename nor servname",
        "correct the host's name, or its entry in DNS",
    ),
    (r"connection refused|failed to establish a new connection|connection reset|remotedisconnected", "start the server"),
    (r"timed out|timeout", "see whether the server is overloaded, or a firewall is between"),
    (r"database is locked|database table is locked", LOCKED),
    (r"readonly database|read-only|unable to open database file", FORBIDDEN),
    (r"database or disk is full|no space left|quota", FULL),
    (r"malformed|not a database", "restore a backup"),
    (r"out-of-date database schema|no such table|no such column|can't locate revision", "use the MLflow that made it"),
    (r"no module named '?(?P<module>[\w.]+)", "install the Python package of {module} here"),
)
STATUSES = {
    401: LOGIN,
    403: "ask whoever runs the server for access, or " + LOGIN,
    404: "correct the address: that of MLflow itself, with its path prefix if it has one",
    405: "correct the address: that of MLflow itself, with its path prefix if it has one",
    413: "have the proxy in front of the server take larger requests",
    429: "run this again later, or have the server's limit of requests raised",
}


def tracking_error(uri: str, error: BaseException) -> SetupError:
    """The error for a tracking store that cannot be used, with the fix."""
    shown = redacted(uri)  # a URI of the environment or of an older sweep may hold a login
    text = " ".join(str(one) for one in _chain(error))
    words = NOISE.sub("", str(error)).replace(uri, shown)
    reason = one_line(words) if words.strip() else _name_of(error)
    return SetupError(
        f"tracking {shown} cannot be used: {reason}", f"{fix(uri, error, text)}, {ELSEWHERE}", code="tracking-unavailable"
    )


def fix(uri: str, error: BaseException, text: str) -> str:
    """What to do about the error; `text` is that of the error and its causes."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT):
            return FULL
        if isinstance(one, OSError) and one.filename and one.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"make {one.filename} writable for this user"
    host = urlsplit(uri).netloc.rpartition("@")[2] if "://" in uri else ""
    for pattern, advice in FIXES:
        if match := re.search(pattern, text, re.IGNORECASE):
            return advice.format(host=host, proxy=_proxy(uri), **match.groupdict())
    status = next((int(next(filter(None, groups))) for groups in STATUS.findall(text)), 0)
    if status >= 500:
        return "look into the server's log"
    if status in STATUSES:
        return STATUSES[status]
    return "see whether MLflow runs there" if uri.startswith("http") else "repair it"


def database_error(file: Path, error: BaseException) -> SetupError:
    """The error for a database file that could not be read, created or replaced."""
    return tracking_error(f"sqlite:///{file}", error)


def _proxy(uri: str) -> str:
    """The variable that names the proxy for this URI."""
    names = (f"{urlsplit(uri).scheme}_proxy", "all_proxy")
    defined = [name for lower in names for name in (lower, lower.upper()) if os.environ.get(name)]
    return defined[0] if defined else names[0]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _name_of(error: BaseException) -> str:
    return type(error).__name__
