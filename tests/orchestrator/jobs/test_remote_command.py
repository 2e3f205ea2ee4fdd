"""Commands on a cluster that only ask, against a Jobs API that runs jobs on this machine: answers, errors, what is left."""

from __future__ import annotations

import getpass
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.errors import SetupError
from orchestrator.jobs import remote_command
from orchestrator.jobs.client import Jobs
from orchestrator.jobs.job import Job
from orchestrator.jobs.package import collect_custom_files, shipped_settings
from orchestrator.jobs.remote_command import job_metadata
from orchestrator.spec.loader import load_spec, resolved
from orchestrator.storage.factory import open_storage
from tests.support.fake_jobs_api import JobsApi, Sent, serving, wait_until

NET = "def net(image_shape, num_classes): ...\n"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsApi]:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "api").mkdir()
    with serving(tmp_path / "api") as api:
        yield api


def asked(api: JobsApi, *arguments: str) -> int:
    return main([arguments[0], *arguments[1:], "--address", api.address])


def test_resume_plans_with_the_submitted_files(api: JobsApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {"mine/nets.py": NET, "mine/dense #1.pt": "w"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    settings = ["name=own", "model={module: nets.net}", f"modules_path={tmp_path}/mine"]
    custom = collect_custom_files(load_spec("digits", [*settings, f'initial_weights="{tmp_path}/mine/dense #1.pt"']))
    storage = open_storage(str(tmp_path / "runs"), create=True)
    sent = load_spec("digits", [*settings, *shipped_settings(custom), f"storage={storage.root}"])
    storage.write_json("sweeps/own/spec.json", resolved(sent))
    storage.write_json("sweeps/own/trials.json", {"trials": []})
    api.put("own-1", "", "FAILED", **{"drive.sweep": "own", "drive.storage": storage.root, "drive.own": json.dumps(custom)})
    code = asked(api, "resume", "own", "--dry-run", "--storage", f"{storage.root}/")
    output = capsys.readouterr()
    assert (code, output.err) == (0, "")
    assert "0 finished and kept, 0 failed and" in output.out
    assert list(api.jobs) == ["own-1"]


def test_answer_of_the_doctor_comes_alone_without_its_errors(
    api: JobsApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert asked(api, "doctor", "--storage", str(tmp_path / "file" / "runs"), "--json") == 3
    checks = json.loads(capsys.readouterr().out)
    assert [check["ok"] for check in checks if check["check"] == "storage"] == [False]
    assert asked(api, "doctor", "nothing.yaml", "--json") == 2
    assert api.jobs == {}


def output_of(
    api: JobsApi, monkeypatch: pytest.MonkeyPatch, script: str, timeout_s: float | None = None
) -> remote_command.CommandOutput:
    """What a small job says whose command is this script."""
    monkeypatch.setattr(remote_command, "COMMAND", ("sh", "-c", script))
    return remote_command.run_remote_command(Jobs(api.address), "job", ["status"], "", timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("script", "text", "errors"),
    [
        ("echo answer; echo progress >&2", "answer\n", ""),
        ("echo progress >&2", "", ""),
        ("echo '[]'; echo warning >&2; exit 3", "[]\n", ""),
        ("echo 'drive-sweep: no storage' >&2; exit 3", "", "drive-sweep: no storage\n"),
        ("echo half; echo 'drive-sweep: wrong' >&2; exit 2", "", "drive-sweep: wrong\n"),
    ],
)
def test_remote_command_separates_answer_and_errors(
    api: JobsApi, monkeypatch: pytest.MonkeyPatch, script: str, text: str, errors: str
) -> None:
    output = output_of(api, monkeypatch, script)
    assert (output.text, output.errors) == (text, errors)
    assert api.removed == [output.job.id]


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("echo 'drive-sweep: wrong [file-exists]' >&2; exit 2", 2, "wrong"),
        ("echo 'drive-sweep: no storage' >&2; exit 3", 3, "no storage"),
        ("echo Traceback >&2; exit 1", 3, "Traceback"),
        ("exit 137", 3, "FAILED (exit code 137) without any output; try again"),
    ],
)
def test_only_errors_of_the_user_exit_with_2(
    api: JobsApi, monkeypatch: pytest.MonkeyPatch, script: str, code: int, message: str
) -> None:
    failure = output_of(api, monkeypatch, script).failure()
    assert failure.exit_code == code
    assert str(failure).endswith(message)


def test_a_job_that_did_not_begin_says_why(
    api: JobsApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(job: Sent) -> dict[str, Any]:
        return {"type": "SUBMISSION"} | job.details | {"status": "FAILED", "message": "no node for the job"}

    monkeypatch.setattr(api, "holds", True)
    monkeypatch.setattr(api, "facts", lost)
    assert asked(api, "doctor", "--storage", str(tmp_path), "--json") == 3
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "drive-sweep: no node for the job [job-failed]\n")


def test_remote_command_is_stopped_and_removed_after_its_timeout(api: JobsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"job job-\w+ has not ended within 1 s; it was stopped"):
        output_of(api, monkeypatch, "sleep 60", timeout_s=1.0)
    assert (api.jobs, len(api.removed)) == ({}, 1)


def test_ctrl_c_leaves_no_job(api: JobsApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        wait_until(lambda: any(job.details["status"] == "RUNNING" for job in api.jobs.values()))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        output_of(api, monkeypatch, "sleep 60")
    assert (api.jobs, len(api.removed)) == ({}, 1)


def followed(api: JobsApi, id_: str, **timeouts: float) -> tuple[str, Job]:
    messages: list[str] = []
    job = Jobs(api.address, **timeouts).follow(id_, messages.append)
    return "".join(messages), job


def end_later(api: JobsApi, id_: str, seconds: float, last: str) -> None:
    def end() -> None:
        time.sleep(seconds)
        with api.jobs[id_].log.open("a") as log:
            log.write(last)
        api.jobs[id_].details |= {"status": "SUCCEEDED", "driver_exit_code": 0}

    threading.Thread(target=end).start()


def test_a_blip_after_a_quiet_hour_does_not_end_the_following(api: JobsApi) -> None:
    api.put("quiet-1", "first\n", **{"drive.sweep": "quiet"})
    api.drops_after_s, api.refusals = 2.0, 1
    end_later(api, "quiet-1", 3, "last\n")
    log, job = followed(api, "quiet-1", unreachable_timeout_s=1.0)
    assert (log, job.state) == ("first\nlast\n", "SUCCEEDED")


def test_following_gives_up_on_a_cluster_that_stays_away(api: JobsApi) -> None:
    api.put("gone-1", "first\n", **{"drive.sweep": "gone"})
    api.refusals = 1000
    with pytest.raises(SetupError, match="a blip"):
        followed(api, "gone-1", unreachable_timeout_s=1.0)


def test_a_connection_whose_other_end_is_gone_does_not_block(api: JobsApi) -> None:
    api.put("open-1", "first\n", **{"drive.sweep": "open"})
    api.silent = True
    end_later(api, "open-1", 1, "last\n")
    started_at = time.monotonic()
    log, job = followed(api, "open-1", silence_timeout_s=0.5)
    assert time.monotonic() - started_at < 30  # the connection itself ends after 60 s
    assert (log, job.exit_code) == ("first\nlast\n", 0)


def test_a_slash_at_the_end_of_the_storage_hides_no_active_job(api: JobsApi) -> None:
    api.put("x-1", "", **{"drive.sweep": "x", "drive.storage": "s3://a/b/"})
    assert [job.id for job in Jobs(api.address).of_sweep("x", "s3://a/b")] == ["x-1"]
    assert Jobs(api.address).of_sweep("x", "s3://a/c") == []


def test_unknown_job_after_a_restart_of_the_head_has_a_hint(api: JobsApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(api, "status", "lost") == 2
    assert "sweeps there: none. A head that was restarted knows no earlier jobs: `drive-sweep submit FILE --address" in (
        capsys.readouterr().err
    )


def test_a_user_may_have_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert job_metadata("s3://a/b")["drive.user"].isdigit()


@pytest.mark.parametrize("option", ["--html", "--out"])
def test_report_writes_no_files_on_the_cluster(api: JobsApi, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert asked(api, "report", "s", option, "x") == 2
    assert f"{option}: must not go with --address" in capsys.readouterr().err
