"""A client of Ray's Jobs API, which runs sweeps as jobs of a cluster.

An address is that of the dashboard, http(s)://HEAD:8265. Every call raises SetupError if the cluster cannot be reached or
refuses the token. Ray is imported by the first call that needs it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.cluster.addresses import ADDRESS_VARIABLES, is_jobs_api, jobs_api_of_environment, require_reachable
from orchestrator.command_line import command
from orchestrator.errors import SetupError, UserError
from orchestrator.jobs.job import Job, job_from, without_ray_lines
from orchestrator.process.proxies import proxy_hint, proxy_of
from orchestrator.uris import same_location
from trainables.wording import first_line, one_line

TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
AUTH_HINT = "export RAY_AUTH_MODE=token and the cluster's own RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH, a file that holds it)"
STOP_GRACE_S = 30  # a driver stops within 20 s, even on a busy machine
STOP_SETTINGS = {"RAY_JOB_STOP_SIGNAL": "SIGTERM", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_GRACE_S)}
POLL_INTERVAL_S = 0.5
UNREACHABLE_TIMEOUT_S = 60.0
SILENCE_TIMEOUT_S = 60.0


def api_address(option: str | None) -> str:
    """The address of the Jobs API: that of the option, else of the environment.

    Raises:
        UserError: there is none.
    """
    address = option or jobs_api_of_environment()
    if not address or not is_jobs_api(address):
        got = repr(option) if option else "none"
        raise UserError(
            f"--address: must be the cluster's dashboard, got {got}",
            "give --address http://HEAD:8265, or set RAY_API_SERVER_ADDRESS",
            code="address-invalid",
        )
    try:
        _ = urlsplit(address).port
    except ValueError as error:
        raise UserError(
            f"--address: must be the cluster's dashboard, got {address!r}: {error}", "correct its port", code="address-invalid"
        ) from error
    return address.rstrip("/")


class Jobs:
    """The Jobs API of one cluster.

    Args:
        unreachable_timeout_s: for a cluster that does not answer.
        silence_timeout_s: without output, after which the connection is made anew: its other end may be gone.

    Raises:
        SetupError: it cannot be reached, requires another token, or has another version of Ray.
    """

    def __init__(
        self,
        address: str,
        unreachable_timeout_s: float = UNREACHABLE_TIMEOUT_S,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
    ) -> None:
        self.address = address
        self.unreachable_timeout_s = unreachable_timeout_s
        self.silence_timeout_s = silence_timeout_s
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if proxy := proxy_of(address):
            via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            server = f"the proxy {proxy} of the environment, on the way to {address}"
            hint = f"give another, or export NO_PROXY={parts.hostname} to go there directly"
            require_reachable(str(via.hostname), via.port or 80, server, hint)
        else:
            hint = "give the dashboard of a running head with --address http://HEAD:8265"
            require_reachable(str(parts.hostname), port, address, hint)
        _enable_token_auth()
        with self._api_errors():
            self.client = _client(address)
            _require_same_version(self.client, address)

    def all(self) -> list[Job]:
        """The jobs of all sweeps, newest first."""
        with self._api_errors():
            details = self.client.list_jobs()
        jobs = [job_from(one) for one in details if (one.metadata or {}).get("drive.sweep")]
        return sorted(jobs, key=lambda job: -job.started)

    def of_sweep(self, name: str, storage: str | None = None) -> list[Job]:
        """The jobs of one sweep, newest first; `name` may also be the id of one job."""
        jobs = [job for job in self.all() if name in (job.sweep, job.id)]
        return [job for job in jobs if storage is None or same_location(storage, job.storage)]

    def job(self, id_: str) -> Job:
        with self._api_errors():
            return job_from(self.client.get_job_info(id_))

    def submit(self, id_: str, entrypoint: str, folder: Path, metadata: dict[str, str], variables: dict[str, str]) -> None:
        """Starts a job; `folder` becomes its working directory on every node that it uses."""
        environment = {"working_dir": str(folder), "env_vars": STOP_SETTINGS | variables}
        with self._api_errors():
            self.client.submit_job(submission_id=id_, entrypoint=entrypoint, runtime_env=environment, metadata=metadata)

    def stop(self, id_: str) -> Job:
        """Stops the job, and returns it once it has ended."""
        with self._api_errors():
            self.client.stop_job(id_)
        hint = f"`{command('list', address=self.address)}` shows its state"
        return self.wait(id_, STOP_GRACE_S + self.unreachable_timeout_s, hint)

    def wait(self, id_: str, timeout_s: float, hint: str) -> Job:
        """The job once it has ended. Raises SetupError, with this hint, if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while (job := self.job(id_)).active:
            if time.monotonic() > deadline:
                raise SetupError(f"job {id_} has not ended within {timeout_s:.0f} s", hint, code="job-timeout")
            time.sleep(POLL_INTERVAL_S)
        return job

    def log(self, id_: str) -> str:
        """What the job's command has printed, without Ray's lines."""
        with self._api_errors():
            return without_ray_lines(self.client.get_job_logs(id_))

    def follow(self, id_: str, emit: Callable[[str], object]) -> Job:
        """Emits what the job's command prints, from the first line to its end; reconnects after a lost connection."""
        emitted = 0

        def emit_new(log: str) -> None:
            nonlocal emitted
            output = without_ray_lines(log)
            if len(output) > emitted:
                emit(output[emitted:])
                emitted = len(output)

        async def tail() -> None:
            text = ""
            async with aclosing(self.client.tail_job_logs(id_)) as chunks:
                while (chunk := await asyncio.wait_for(anext(chunks, None), self.silence_timeout_s)) is not None:
                    text += chunk
                    emit_new(text[: text.rfind("\n") + 1])  # whether a line is Ray's is known at its end
            emit_new(text)

        lost_at: float | None = None
        while True:
            with suppress(*_client_errors()):  # the job's state says whether more follows; all output is sent again then
                asyncio.run(tail())
            try:
                job = self.job(id_)
                if not job.active:
                    with self._api_errors():
                        emit_new(self.client.get_job_logs(id_))
                    return job
                lost_at = None
            except SetupError:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > self.unreachable_timeout_s:
                    raise
            time.sleep(POLL_INTERVAL_S)

    def cancel_and_delete(self, id_: str) -> None:
        """Stops the job if it runs, and removes it; does nothing if the cluster fails to do so."""
        with suppress(SetupError):
            if self.job(id_).active:
                self.stop(id_)
            self.delete(id_)

    def delete(self, id_: str) -> None:
        with self._api_errors():
            self.client.delete_job(id_)

    @contextmanager
    def _api_errors(self) -> Iterator[None]:
        """Turns errors of the API into a SetupError of one line."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            reason = first_line(error).rpartition(": ")[2]
            raise SetupError(
                f"the cluster at {self.address} requires its token: {reason}", AUTH_HINT, code="cluster-login-failed"
            ) from error
        except _client_errors() as error:
            raise SetupError(
                f"the Jobs API at {self.address} failed: {one_line(error)}{proxy_hint(self.address)}", code="jobs-api-error"
            ) from error


def _client(address: str) -> Any:
    """Ray's client for this address, which the variables of the environment would override."""
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise SetupError(
            f"the Jobs API needs ray[default]: {error}", "pip install 'drive-sweep[cluster]'", code="package-missing"
        ) from error
    for name in (
        "dashboard.modules.dashboard_sdk",
        "dashboard.modules.job.sdk",
        "_private.runtime_env.packaging",
        "_private.authentication",
    ):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    before = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        return JobSubmissionClient(address)
    finally:
        os.environ.update(before)


def _require_same_version(client: Any, address: str) -> None:
    import ray

    cluster = client._server_ray_version
    if cluster != ray.__version__:
        raise SetupError(
            f"the Ray cluster at {address} runs Ray {cluster}, this machine has {ray.__version__}",
            "install the same version on both",
            code="version-mismatch",
        )


def _enable_token_auth() -> None:
    """Turns on token mode if there is a token and RAY_AUTH_MODE is not set. Ray reads these variables when it is imported.

    Raises:
        SetupError: token mode is on, and there is no token.
    """
    file = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if file and not os.environ.get("RAY_AUTH_TOKEN") and not Path(file).expanduser().is_file():
        raise SetupError(
            f"RAY_AUTH_TOKEN_PATH: must be a file that holds the cluster's token, got {file!r}",
            "correct it",
            code="cluster-login-failed",
        )
    has_token = any(os.environ.get(name) for name in TOKEN_VARIABLES) or os.path.isfile(os.path.expanduser("~/.ray/auth_token"))
    if has_token:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    elif os.environ.get("RAY_AUTH_MODE") == "token":
        raise SetupError("RAY_AUTH_MODE is token, but there is no token", AUTH_HINT, code="cluster-login-failed")


def _client_errors() -> tuple[type[Exception], ...]:
    """What Ray's client raises for an invalid answer, and for none."""
    try:
        import aiohttp
    except ImportError:  # without it the client says what to install
        return (RuntimeError, ValueError, OSError)
    return (RuntimeError, ValueError, OSError, aiohttp.ClientError)
