"""Connects to an existing Ray cluster or starts a local one, without its noise."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from orchestrator.cluster.addresses import is_jobs_api, is_local_ray, require_cluster_reachable
from orchestrator.command_line import command
from orchestrator.errors import SetupError, UserError
from orchestrator.process.import_paths import WorkerFolders
from orchestrator.process.setup import shield_children_from_hangup
from trainables.runtime.machine import limits, memory_limit, processors
from trainables.wording import one_line

MAX_SOCKET_BYTES = 107  # of a path, on Linux
SOCKET = "/ray/session_{}_{}/sockets/plasma_store.1"  # the longest of Ray's; a time of 26 characters and a process id
MIN_STORE_BYTES, MAX_STORE_BYTES, STORE_SHARE = 80 << 20, 1 << 30, 0.3  # of memory, for Ray's objects; a sweep has few


@contextmanager
def ray_environment(hidden: Iterable[str]) -> Iterator[None]:
    """Sets Tune up without its loggers, files and signal handler during the block (scheduling/tune_adapter.py says why).

    Args:
        hidden: variables to remove during the block, since workers of a local Ray inherit the environment.
    """
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",
        "TUNE_WARN_THRESHOLD_S": "60",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_prestart_worker_first_driver": "0",  # one process per CPU, which stages do not use
    }
    before = {name: os.environ.get(name) for name in [*settings, *hidden]}
    os.environ.update(settings)
    for name in hidden:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def connect_to_cluster(address: str | None, notify: Callable[[str], object] = print) -> Iterator[None]:
    """Connects to the Ray cluster at `address` or RAY_ADDRESS, else starts a local Ray, during the block.

    A local Ray gets a random token, so that no other user of the machine can use it and nothing is written into the home
    folder; for an existing cluster the user's RAY_AUTH_MODE and token apply.

    Raises:
        UserError: the address is that of a dashboard.
        SetupError: the cluster cannot be reached, or has other versions.
    """
    local = is_local_ray(address)
    address = address or os.environ.get("RAY_ADDRESS")
    if is_jobs_api(address):
        raise UserError(
            f"--address or RAY_ADDRESS: must be HOST:PORT of a cluster that this driver joins, got {address!r}",
            f"`{command('submit', address=address)}` runs the driver there",
            code="address-invalid",
        )
    settings = _local_settings(notify) if local else {}
    added: list[str] = []
    if local and "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
        added = ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN"]
    if not local:
        require_cluster_reachable(str(address))
    import ray  # reads these variables when it is imported

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    _keep_off_the_screen()
    try:
        with shield_children_from_hangup():
            ray.init(
                address="local" if local else address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                job_config=_job_config(),
                **settings,
            )
    except Exception as error:  # Ray raises a bare one if a node takes more than 30 s to start
        if "Version mismatch" in str(error):
            raise _version_mismatch(str(address), str(error)) from error
        if local:
            raise SetupError(f"cannot start a local Ray: {one_line(error)}", code="ray-not-started") from error
        raise SetupError(
            f"cannot connect to the Ray cluster at {address}: {one_line(error)}",
            "is it up, and are RAY_AUTH_MODE and RAY_AUTH_TOKEN those of the cluster?",
            code="cluster-unreachable",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def tune_logs_to(log: Callable[[str], object]) -> Iterator[None]:
    """Has what Ray Tune says of errors, such as the traceback of a lost process, go to `log` and not to the screen."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log(f"Ray Tune: {self.format(record)}")

    logger, handler = logging.getLogger("ray.tune"), Forward()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def _keep_off_the_screen() -> None:
    """Has Ray print nothing of what nodes say, such as half a screen on a lost process: the sweep says so in a line."""
    import ray

    ray._private.worker._worker_logs_enabled = False  # no option of ray.init does that


def _local_settings(notify: Callable[[str], object]) -> dict[str, Any]:
    """What a local Ray may use of this machine; Ray itself does not see limits set below a container's root."""
    folder, remark = ray_folder()
    if remark:
        notify(remark)
    settings = {"num_cpus": processors(), "include_dashboard": False, "_temp_dir": folder}
    if (limit := memory_limit()) is None:
        return settings
    store = max(MIN_STORE_BYTES, min(int(STORE_SHARE * limit), MAX_STORE_BYTES))
    return settings | {"object_store_memory": store, "_memory": max(limit - store, 0)}


def ray_folder() -> tuple[str, str]:
    """Where a local Ray keeps its files and sockets, and a remark if that is not the folder that the user set.

    Raises:
        SetupError: no folder is suitable.
    """
    longest = MAX_SOCKET_BYTES - len(SOCKET.format("0" * 26, os.getpid()))
    problems: list[str] = []
    for variable, base in [*((name, os.environ.get(name, "")) for name in ("RAY_TMPDIR", "TMPDIR")), ("", "/tmp")]:
        if not base:
            continue
        problem = _folder_problem(base, longest)
        if not problem:
            remark = f"Ray keeps its files in {base}, since {' and '.join(problems)}" if problems else ""
            return f"{base.rstrip('/')}/ray", remark
        problems.append(f"{variable + ' ' if variable else ''}{base} {problem}")
    raise SetupError(
        f"RAY_TMPDIR must be a folder that can be written, with a path of at most {longest} characters, since "
        f"{' and '.join(problems)}",
        "set it",
        code="ray-folder-invalid",
    )


def _folder_problem(folder: str, longest: int) -> str:
    """Why Ray cannot keep its files in a folder; empty if it can."""
    if not os.path.isabs(folder):
        return "is not absolute"
    if len(os.fsencode(folder)) > longest:
        return f"has more than the {longest} characters that the paths of sockets allow"
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        return "is not a folder that can be written"
    return ""


def _job_config() -> Any:
    """A configuration that keeps the driver's current folder out of its workers' module path."""
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = WorkerFolders()
    return config


def _version_mismatch(address: str, reason: str) -> SetupError:
    """The error for other versions of Ray or Python on the cluster; Ray's message names those of the cluster first."""
    cluster_ray, local_ray = re.findall(r"Ray: (\S+)", reason)[:2]
    cluster_python, local_python = re.findall(r"Python: (\S+)", reason)[:2]
    return SetupError(
        f"the Ray cluster at {address} runs Ray {cluster_ray} and Python {cluster_python}, drive-sweep Ray {local_ray} and "
        f"Python {local_python}",
        "install the same versions on both sides (requirements.txt names ours), and start the cluster again",
        code="version-mismatch",
    )


def require_enough_resources(cpus: float, gpus: float, workers: int = 1) -> None:
    """Raises SetupError if a local Ray, which never grows, has no room for a single stage.

    Args:
        cpus, gpus: of the stage, of all its workers together.
    """
    import ray

    available = ray.cluster_resources()
    for name, requested in (("CPU", cpus), ("GPU", gpus)):
        count = available.get(name, 0)
        if requested > count:
            reason = f" ({limits()})" if name == "CPU" and limits() else ""
            raise SetupError(
                f"resources.{name.lower()}s_per_trial is {requested:g}, this machine has {count:g} {name}s{reason}",
                "lower it" if workers == 1 else f"lower it, or take fewer than {workers} workers",
                code="resources-exceeded",
            )
