"""Joining Ray: a cluster that is there, or one of our own on this machine; without its noise."""

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

SOCKET_BYTES = 107  # of a path, on Linux
SOCKET = "/ray/session_{}_{}/sockets/plasma_store.1"  # the longest of Ray's; a time of 26 characters and a process id
LEAST_STORE_BYTES, MOST_STORE_BYTES, STORE_SHARE = 80 << 20, 1 << 30, 0.3  # of memory for Ray's objects; a sweep has few


@contextmanager
def ray_environment(hidden: Iterable[str]) -> Iterator[None]:
    """Tune without its own loggers, files and signal handler (the traps are in the module of the Searcher).

    Args:
        hidden: variables that are the driver's alone. Workers of a Ray that we start inherit the environment; these are not in
            it meanwhile.
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
        "RAY_prestart_worker_first_driver": "0",  # a process for each CPU of this machine, of which stages use none
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
def connect_to_cluster(address: str | None, tell: Callable[[str], object] = print) -> Iterator[None]:
    """A Ray cluster: the one at `address` or RAY_ADDRESS, else one of our own on this machine.

    Our own gets a token made for it alone, so that no other user of the machine can use it and nothing is written into
    the home folder; for an existing cluster the user's RAY_AUTH_MODE and token count.

    Raises:
        UserError: the address is that of a dashboard.
        SetupError: the cluster cannot be reached.
    """
    own = is_local_ray(address)
    address = address or os.environ.get("RAY_ADDRESS")
    if is_jobs_api(address):
        raise UserError(
            f"--address or RAY_ADDRESS: must be HOST:PORT of a cluster that this driver joins, got {address!r}",
            f"`{command('submit', address=address)}` runs the driver there",
            code="address-invalid",
        )
    settings = _own_settings(tell) if own else {}
    added: list[str] = []
    if own and "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
        added = ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN"]
    if not own:
        require_cluster_reachable(str(address))
    import ray  # reads both while it is imported

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        with shield_children_from_hangup():
            ray.init(
                address="local" if own else address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                job_config=_job_config(),
                **settings,
            )
    except Exception as error:  # Ray raises a bare one where a node takes more than 30 s to start
        if "Version mismatch" in str(error):
            raise _version_mismatch(str(address), str(error)) from error
        if own:
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


def _own_settings(tell: Callable[[str], object]) -> dict[str, Any]:
    """What our own Ray may use of this machine; Ray itself sees only limits that are those of a container's root."""
    folder, remark = ray_folder()
    if remark:
        tell(remark)
    settings = {"num_cpus": processors(), "include_dashboard": False, "_temp_dir": folder}
    if (limit := memory_limit()) is None:
        return settings
    store = max(LEAST_STORE_BYTES, min(int(STORE_SHARE * limit), MOST_STORE_BYTES))
    return settings | {"object_store_memory": store, "_memory": max(limit - store, 0)}


def ray_folder() -> tuple[str, str]:
    """Where our own Ray keeps its files and sockets, and a remark where that is not the folder that the user set.

    Raises:
        SetupError: no folder will do.
    """
    longest = SOCKET_BYTES - len(SOCKET.format("0" * 26, os.getpid()))
    problems: list[str] = []
    for variable, base in [*((name, os.environ.get(name, "")) for name in ("RAY_TMPDIR", "TMPDIR")), ("", "/tmp")]:
        if not base:
            continue
        problem = ""
        if not os.path.isabs(base):
            problem = "is not absolute"
        elif len(os.fsencode(base)) > longest:
            problem = f"has more than the {longest} characters that the paths of sockets allow"
        elif not os.path.isdir(base) or not os.access(base, os.W_OK | os.X_OK):
            problem = "is no folder that can be written"
        if not problem:
            return (
                f"{base.rstrip('/')}/ray",
                f"Ray keeps its files in {base}, since {' and '.join(problems)}" if problems else "",
            )
        problems.append(f"{variable + ' ' if variable else ''}{base} {problem}")
    raise SetupError(
        f"RAY_TMPDIR must be a folder that can be written, with a path of at most {longest} characters, since "
        f"{' and '.join(problems)}",
        "set it",
        code="ray-folder-invalid",
    )


def _job_config() -> Any:
    """Workers without the driver's current folder before all modules."""
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


def require_enough_resources(cpus: float, gpus: float) -> None:
    """Raises SetupError if not one stage fits on our own Ray, which never grows."""
    import ray

    available = ray.cluster_resources()
    for name, requested in (("CPU", cpus), ("GPU", gpus)):
        count = available.get(name, 0)
        if requested > count:
            reason = f" ({limits()})" if name == "CPU" and limits() else ""
            raise SetupError(
                f"resources.{name.lower()}s_per_trial is {requested:g}, this machine has {count:g} {name}s{reason}",
                "lower it",
                code="resources-exceeded",
            )
