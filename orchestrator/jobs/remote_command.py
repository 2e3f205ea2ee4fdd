"""One command as a small job of a cluster, for what this machine cannot see itself: its answer, or why there is none."""

from __future__ import annotations

import getpass
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.command_line import JOBS_API_VARIABLE
from orchestrator.errors import EXIT_ENVIRONMENT, EXIT_USER, SetupError, SweepError, UserError
from orchestrator.jobs.client import Job, Jobs
from orchestrator.jobs.package import package
from orchestrator.version import source_revision

COMMAND = ("python", "-m", "orchestrator.cli")
NOTHING: Mapping[str, str] = {}
NO_OUTPUT_MARKER = "no answer:\n"  # in the log of a small job, before the errors of its command
REMOTE_COMMAND_TIMEOUT_S = {"doctor": 900.0, "resume": 3600.0}  # nodes may take minutes to answer, and so may reading the data
DEFAULT_TIMEOUT_S = 180.0  # to start its process on the head, to import, and to ask the storage


@dataclass(frozen=True, kw_only=True)
class CommandOutput:
    """What a command said that ran as a small job: its answer, or where it has none its errors."""

    job: Job
    text: str
    errors: str

    def failure(self) -> SweepError:
        """Why there is no answer, in the words of the command, else of Ray."""
        ended = f"job {self.job.id} {self.job.state} (exit code {self.job.exit_code}) without a word; try again"
        told = (self.errors or self.text).strip().removeprefix("drive-sweep: ") or self.job.problem or ended
        return UserError(told) if self.job.exit_code == EXIT_USER else SetupError(told)


def run_remote_command(
    jobs: Jobs,
    name: str,
    arguments: list[str],
    storage: str,
    own: Mapping[str, str] = NOTHING,
    texts: Mapping[str, str] = NOTHING,
    answer_on_stderr: bool = False,
) -> CommandOutput:
    """What one command says as a job, when that has ended; it is not kept on the cluster, also not after Ctrl-C."""
    command = shlex.join([*COMMAND, *arguments])
    id_ = f"{name}-{secrets.token_hex(3)}"
    variables = {"COLUMNS": str(shutil.get_terminal_size().columns), JOBS_API_VARIABLE: jobs.address}
    timeout_s = REMOTE_COMMAND_TIMEOUT_S.get(arguments[0], DEFAULT_TIMEOUT_S)
    try:
        with package(texts, own) as folder:
            jobs.submit(
                id_, _shell_line(command, "err" if answer_on_stderr else "out"), folder, job_metadata(storage), variables
            )
        job = jobs.wait(id_, timeout_s, "it was ended; is the head of the cluster overloaded, or does the storage hang?")
        log = jobs.log(id_)
    finally:
        jobs.cancel_and_delete(id_)
    failed = log.startswith(NO_OUTPUT_MARKER)
    return CommandOutput(job=job, text="" if failed else log, errors=log.removeprefix(NO_OUTPUT_MARKER) if failed else "")


def _shell_line(command: str, answer: str) -> str:
    """A shell's line that prints what the command answers on that output, else its errors: a job has one log for both.

    One line in truth, since Ray writes it into the log. The doctor ends with 3 and an answer.
    """
    answers = f'[ $code = 0 ] || [ $code = {EXIT_ENVIRONMENT} -a {answer} = out -a -s "$said/out" ]'
    return (
        f'said=$(mktemp -d); {command} >"$said/out" 2>"$said/err"; code=$?; '
        f'if {answers}; then cat "$said/{answer}"; else echo {shlex.quote(NO_OUTPUT_MARKER.rstrip())}; cat "$said/err"; fi; '
        f'rm -r "$said"; exit $code'
    )


def job_metadata(storage: str) -> dict[str, str]:
    return {"drive.storage": storage, "drive.revision": source_revision(), "drive.user": _user()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container a user may have no name
        return str(os.getuid())
