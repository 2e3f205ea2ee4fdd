"""URIs that hold a login or a key are refused wherever one is given, and never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SetupError, UserError
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from orchestrator.tracking.client import as_setup_error
from orchestrator.uris import redacted, same_location, storage_uri_problem, uri_problem
from tests.support.cli import drive_sweep, tiny_sweep

SECRETS = {
    "s3://AKIA:PW@bucket/p": "s3://...@bucket/p",
    "s3://AKIA:PW/x@bucket/p": "s3://...@bucket/p",
    "s3://AKIA:PW?x@bucket/p": "s3://...@bucket/p",
    "s3://PW@bucket/p": "s3://...@bucket/p",
    "s3://anonymous@bucket/p": "s3://...@bucket/p",
    "s3://AKIA:PW": "s3://AKIA:...",
    "s3://bucket/p?access_key=A&secret_key=PW": "s3://bucket/p?...",
    "s3://bucket/p?region=eu&PW": "s3://bucket/p?...",
    "gs://bucket/p?access_token=PW": "gs://bucket/p?...",
    "http://u:PW/w@host": "http://...@host",
    "http://u:PW@host:5000": "http://...@host:5000",
    "http://u:PW": "http://u:...",
    "https://host/?token=PW": "https://host/?...",
    "postgresql://u:PW@host/db": "postgresql://...@host/db",
    "postgresql://host/db?password=PW": "postgresql://host/db?...",
}
HARMLESS = (
    "./runs@home",
    "/shared/a@b/runs",
    "sqlite:////home/me@lab/mlflow.db?timeout=5",
    "file:///home/me@lab/runs",
    "http://[::1]:5000",
    "https://mlflow.example/path",
    "postgresql://host:5432/db?sslmode=require",
    "s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http&region=eu",
    "gs://bucket",
)


@pytest.mark.parametrize(("uri", "shown"), SECRETS.items())
def test_a_uri_with_a_secret_is_refused_and_not_repeated(uri: str, shown: str) -> None:
    assert redacted(uri) == shown
    assert uri_problem(uri)
    assert "PW" not in uri_problem(uri)
    key = "storage" if storage_uri_problem(uri) != "correct it" else "tracking.uri"
    with pytest.raises(UserError) as refused:
        load_spec("digits", [f"{key}={uri}"])
    assert f"got {shown!r}" in str(refused.value)
    assert "PW" not in str(refused.value)


@pytest.mark.parametrize("uri", [uri for uri in SECRETS if uri.startswith(("s3", "gs"))])
def test_no_storage_is_opened_with_a_secret(uri: str) -> None:
    with pytest.raises(UserError, match="storage: must be a folder, s3://BUCKET/PREFIX or") as refused:
        open_storage(uri)
    assert "PW" not in str(refused.value)


@pytest.mark.parametrize("uri", HARMLESS)
def test_other_uris_and_paths_may_be_written_down(uri: str) -> None:
    assert (uri_problem(uri), redacted(uri)) == ("", uri)
    if not uri.startswith(("http", "sqlite", "postgresql")):
        assert storage_uri_problem(uri) == ""


def test_invalid_storage_is_refused_before_a_cluster_gets_it() -> None:
    with pytest.raises(
        UserError, match=r"storage must be a folder, s3://BUCKET/PREFIX or .*, got 'ftp://host/runs'; correct it"
    ):
        load_spec("digits", ["storage=ftp://host/runs"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "--address", "http://127.0.0.1:9", "--storage", "s3://bucket/p?secret_key=PW"),
        ("doctor", "--storage", "runs", "--tracking-uri", "http://me:PW@host"),
        ("sync", "x", "--tracking-uri", "http://me:PW/x@host"),
        ("status", "x", "--address", "http://127.0.0.1:9", "--storage", "s3://A:PW@bucket"),
    ],
)
def test_an_option_of_any_command_is_checked_first(arguments: tuple[str, ...]) -> None:
    answer = drive_sweep(*arguments, expect=2)
    assert answer.stderr.startswith(f"drive-sweep: {arguments[-2]}: must be a folder")
    assert "PW" not in answer.stderr + answer.stdout


def test_a_job_gets_no_secret(tmp_path: Path) -> None:
    options = ("--storage", "s3://bucket/p?access_key=A&secret_key=PW", "--tracking-uri", "http://mlflow:5000")
    answer = drive_sweep("submit", tiny_sweep(tmp_path), *options, "--address", "http://127.0.0.1:9", expect=2)
    assert "'s3://bucket/p?...'; remove 'access_key' after '?', where only endpoint_override" in answer.stderr
    assert "PW" not in answer.stderr


def test_older_tracking_uri_is_shown_without_its_login() -> None:
    uri = "http://me:PW@host:5000"
    with (
        pytest.raises(SetupError, match=r"tracking http://\.\.\.@host:5000 cannot be used: no answer from") as refused,
        as_setup_error(uri),
    ):
        raise OSError(f"no answer from {uri}")
    assert "PW" not in str(refused.value)


def test_slashes_at_the_end_make_no_other_storage() -> None:
    assert same_location("s3://a/b/", "s3://a/b")
    assert same_location("/shared/runs//", "file:///shared/runs")
    assert same_location("s3://a/b/?region=eu", "s3://a/b?region=eu")
    assert not same_location("s3://a/b", "s3://a/bc")
    assert not same_location("s3://a/b?endpoint_override=one", "s3://a/b?endpoint_override=two")
