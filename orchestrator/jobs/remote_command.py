"""Runs one command as a short job of a cluster and returns its output, for what only the cluster can see."""

from __future__ import annotations

import getpass
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.command_line import JOBS_API_VARIABLE
from orchestrator.errors import EXIT_ENVIRONMENT, EXIT_USER, SetupError, SweepError, UserError, split_code
from orchestrator.jobs.client import Jobs
from orchestrator.jobs.job import Job
from orchestrator.jobs.package import package
from orchestrator.version import source_revision

COMMAND = ("python", "-m", "orchestrator.cli")
NO_FILES: Mapping[str, str] = {}
NO_OUTPUT_MARKER = "no answer:\n"  # in the job's log, before the errors of its command
REMOTE_COMMAND_TIMEOUT_S = {"doctor": 900.0, "resume": 3600.0}  # nodes may take minutes to answer, and so may reading the data
DEFAULT_TIMEOUT_S = 180.0  # to start a process on the head, to import, and to read the storage
TIMEOUT_HINT = "it was stopped; is the head of the cluster overloaded, or does the storage hang?"


@dataclass(frozen=True, kw_only=True)
class CommandOutput:
    """The output of a command that ran as a job: its answer, or its errors if it has none."""

    job: Job
    text: str
    errors: str

    def failure(self) -> SweepError:
        """Why there is no answer: the command's own error, else Ray's."""
        kind = UserError if self.job.exit_code == EXIT_USER else SetupError
        if printed := (self.errors or self.text).strip():
            message, code = split_code(printed.removeprefix("drive-sweep: "))
            return kind(message, code=code)
        ended = f"job {self.job.id} {self.job.state} (exit code {self.job.exit_code}) without any output"
        return kind(self.job.problem or ended, "" if self.job.problem else "try again", code="job-failed")


def run_remote_command(
    jobs: Jobs,
    name: str,
    arguments: list[str],
    storage: str,
    custom_files: Mapping[str, str] = NO_FILES,
    texts: Mapping[str, str] = NO_FILES,
    answer_on_stderr: bool = False,
    timeout_s: float | None = None,
) -> CommandOutput:
    """Runs a command as a job and returns its output; the job is removed afterwards, even after Ctrl-C.

    Args:
        name: start of the job's id.
        storage: for the job's metadata.
        custom_files, texts: further files of its package.
        timeout_s: for the whole job; by default that of the command.
    """
    command = shlex.join([*COMMAND, *arguments])
    id_ = f"{name}-{secrets.token_hex(3)}"
    variables = {"COLUMNS": str(shutil.get_terminal_size().columns), JOBS_API_VARIABLE: jobs.address}
    if timeout_s is None:
        timeout_s = REMOTE_COMMAND_TIMEOUT_S.get(arguments[0], DEFAULT_TIMEOUT_S)
    try:
        with package(texts, custom_files) as folder:
            jobs.submit(
                id_, _shell_line(command, "err" if answer_on_stderr else "out"), folder, job_metadata(storage), variables
            )
        job = jobs.wait(id_, timeout_s, TIMEOUT_HINT)
        log = jobs.log(id_)
    finally:
        jobs.cancel_and_delete(id_)
    failed = log.startswith(NO_OUTPUT_MARKER)
    return CommandOutput(job=job, text="" if failed else log, errors=log.removeprefix(NO_OUTPUT_MARKER) if failed else "")


def _shell_line(command: str, answer: str) -> str:
    """A line of shell that prints the command's answer, from stdout or stderr, else its errors: a job has one log for both.

    It is a single line, since Ray writes it into the log. The doctor exits with 3 and still has an answer.
    """
    has_answer = f'[ $code = 0 ] || [ $code = {EXIT_ENVIRONMENT} -a {answer} = out -a -s "$said/out" ]'
    return (
        f'said=$(mktemp -d); {command} >"$said/out" 2>"$said/err"; code=$?; '
        f'if {has_answer}; then cat "$said/{answer}"; else echo {shlex.quote(NO_OUTPUT_MARKER.rstrip())}; cat "$said/err"; fi; '
        f'rm -r "$said"; exit $code'
    )


def job_metadata(storage: str) -> dict[str, str]:
    return {"drive.storage": storage, "drive.revision": source_revision(), "drive.user": _user()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user of a container may have no name
        return str(os.getuid())
