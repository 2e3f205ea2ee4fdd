"""The command line: what each command takes. What it does is in commands/.

A --json answer goes to stdout alone; progress and errors go to stderr. Exit codes are in errors.py.
"""

from __future__ import annotations

import argparse
import errno
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

from orchestrator import commands as command_modules
from orchestrator.bug_report import driver_bug
from orchestrator.cluster.addresses import is_jobs_api
from orchestrator.command_line import DEFAULT_STORAGE, note_options
from orchestrator.errors import EXIT_SIGINT, SetupError, SweepError, with_code
from orchestrator.process.output import STDOUT, reserve_stdout
from orchestrator.process.setup import prepare_process, require_current_folder
from orchestrator.uris import STORAGE_FORMS, require_no_credentials
from trainables.errors import StorageError

STORAGE_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
STORAGE_HELP = f"where results are kept: {STORAGE_FORMS} (default: {DEFAULT_STORAGE})"
API_HELP = "dashboard of a cluster, http://HEAD:8265: ask there, of the newest job of the sweep"
FILE_HELP = "sweep file, or the name of a ready sweep such as digits or reference/cifar10-vgg16 (README)"


MODULES = {  # command -> module of `commands/` with a function of that name
    **dict.fromkeys(("init", "schema", "plan", "trial"), "sweep_file"),
    **dict.fromkeys(("run", "resume", "stop"), "run"),
    **dict.fromkeys(("status", "logs", "report", "compare", "ui"), "results"),
    **dict.fromkeys(("doctor", "sync"), "maintenance"),
    "data": "data",
    "guide": "guide",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; errors that a user can cause are a message, not a traceback."""
    if arguments is None:  # the process is the command's alone
        prepare_process()
    options = _parser().parse_args(arguments)
    try:
        require_current_folder()
        for option in ("storage", "tracking_uri"):  # before one is sent anywhere or written into a file
            require_no_credentials(
                f"--{option.replace('_', '-')}", getattr(options, option, None) or "", storage=option == "storage"
            )
        note_options(options)
        with reserve_stdout(getattr(options, "json", False) or options.command == "schema"):
            code = int(_function(options)(options))
        sys.stdout.flush()
        return code
    except SweepError as error:
        return _print_error(error)
    except StorageError as error:
        return _print_error(SetupError(error.message, error.hint, code="storage-unavailable"))
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            return _print_bug()
        if error.filename == STDOUT:
            return _print_error(SetupError(f"{STDOUT}: {error.strerror}", "make room there", code="output-not-writable"))
        message, hint = f"{error.filename or 'storage'}: {error.strerror}", "make room, or give another --storage"
        return _print_error(SetupError(message, hint, code="storage-unavailable"))
    except KeyboardInterrupt:
        return EXIT_SIGINT
    except Exception:
        return _print_bug()


def _print_bug() -> int:
    """Prints the current exception as a bug, and returns the exit code."""
    return _print_error(driver_bug(traceback.format_exc()))


def _print_error(error: SweepError) -> int:
    print(f"drive-sweep: {with_code(str(error), error.code)}", file=sys.stderr)
    return error.exit_code


def _function(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """What the command does: here, or where --address is a Jobs API the function of the same name that works through it."""
    name, address = options.command, getattr(options, "address", None)
    joins = name in ("run", "resume", "doctor") and not is_jobs_api(address)  # a cluster itself, at HOST:PORT
    through_jobs = name in ("submit", "list_jobs") or (address and not joins)
    module = import_module(f"{command_modules.__name__}.{'jobs' if through_jobs else MODULES[name]}")
    function: Callable[[argparse.Namespace], int] = getattr(module, name)
    return function


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drive-sweep", description="Search warm-up length and iteration count of DRIVE pruning."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, help_: str, *, file: bool = False, sweep: bool = False, json: bool = False
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_, description=help_)
        if file:
            added.add_argument("file", metavar="FILE", help=FILE_HELP)
            _spec_options(added)
        if sweep:
            added.add_argument("name", metavar="NAME", help="name of the sweep")
        if file or sweep:
            added.add_argument("--storage", metavar="FOLDER|URI", help=STORAGE_HELP)
        if json:
            added.add_argument("--json", action="store_true", help="answer in JSON on stdout")
        return added

    init = command("init", "write a commented sweep file to start from")
    init.add_argument("--from", dest="ready", metavar="NAME", help="begin with a ready sweep, such as reference/cifar10-vgg16")
    init.add_argument("path", nargs="?", default="sweep.yaml", help="file to write (default: sweep.yaml)")

    plan = command("plan", "show what would run: trials, shared warm-ups, reused results, cost", file=True, json=True)
    plan.add_argument("--hash", action="store_true", help="read the data to make their digest, so that reuse can be shown")

    data = command(
        "data", "look at the data: counts, files, duplicates, and a picture of what the network sees", file=True, json=True
    )
    data.add_argument("--out", metavar="PNG", help="file of the picture (default: NAME-data.png)")

    command("schema", "print the JSON Schema of the sweep file, for editors")

    trial = command("trial", "run one trial in the foreground, without Ray; FILE may be a trial's key", file=True, json=True)
    trial.add_argument("--index", type=int, help="which trial of the file, counted from 0 as in `plan`")

    run = command("run", "run a sweep here; doing it again continues", file=True, json=True)
    run.add_argument("--recompute", action="store_true", help="set results of earlier runs aside and compute them again")
    _cluster_options(run)

    submit = command("submit", "run a sweep on a cluster as a job, which goes on without this machine", file=True, json=True)
    submit.add_argument("--address", help="dashboard of the cluster, http://HEAD:8265 (default: RAY_API_SERVER_ADDRESS)")
    submit.add_argument("--wait", action="store_true", help="show what the job prints, and end with its exit code")

    jobs = command("list", "show the sweeps that were submitted to a cluster, newest first", json=True)
    jobs.add_argument("--address", help="dashboard of the cluster, http://HEAD:8265 (default: RAY_API_SERVER_ADDRESS)")
    jobs.set_defaults(command="list_jobs")  # `list` is a name of Python's own

    resume = command("resume", "run what failed or did not finish", sweep=True, json=True)
    resume.add_argument("--only", choices=["failed", "unfinished"], help="only trials that failed, or only those that did not")
    resume.add_argument("--trial", metavar="KEY", action="append", help="only this trial; may be repeated")
    resume.add_argument("--from-scratch", action="store_true", help="do not continue from checkpoints")
    resume.add_argument("--dry-run", action="store_true", help="only show what would run")
    resume.add_argument("--wait", action="store_true", help="with the address of a dashboard: show what the job prints")
    _cluster_options(resume)

    status = command("status", "show how a sweep stands", sweep=True, json=True)
    status.add_argument("--address", help=API_HELP)

    logs = command("logs", "show what happened in a sweep", sweep=True)
    logs.add_argument("--trial", metavar="KEY", help="one trial: its lines, and its error with the traceback")
    logs.add_argument("--follow", "-f", action="store_true", help="go on until the sweep ends")
    logs.add_argument("--address", help=API_HELP)

    stop = command("stop", "end a running sweep; `resume` continues it", sweep=True)
    stop.add_argument("--trial", metavar="KEY", help="end one trial only")
    stop.add_argument("--address", help=API_HELP)

    sync = command("sync", "bring MLflow up to date from the trial folders", sweep=True, json=True)
    sync.add_argument("--tracking-uri", metavar="URI", help="MLflow tracking server, instead of the sweep's")

    report = command("report", "show the results: a table, heat maps, the best trials", sweep=True, json=True)
    report.add_argument("--html", metavar="FILE", help="write the report as one HTML file")
    report.add_argument("--address", help=API_HELP)

    doctor = command("doctor", "check storage, tracking, data and every node before a sweep; repair after a crash", json=True)
    doctor.add_argument("file", metavar="FILE", nargs="?", help=FILE_HELP + "; without it nothing is known of the data")
    _spec_options(doctor)
    doctor.add_argument("--storage", metavar="FOLDER", help="where results are kept (default: ./runs)")
    doctor.add_argument("--fix", action="store_true", help="set trials with damaged records aside, to be computed anew")
    doctor.add_argument("--address", help="Ray cluster to look at, HOST:PORT or a dashboard, http://... (else this machine)")

    compare = command(
        "compare", "one method against every other: accuracy with a paired test over seeds, time", sweep=True, json=True
    )
    compare.add_argument("--masks", action="store_true", help="tell how alike the masks are too, which reads the models")
    compare.add_argument("--method", metavar="METHOD", help="the method to compare with the others (default: drive)")

    guide = command("guide", "print the guide: without a topic, the list of topics")
    guide.add_argument("topic", metavar="TOPIC", nargs="?", help="such as methods or results")

    ui = command("ui", "open the MLflow UI on a sweep; prints the link to the comparison of all its trials")
    ui.add_argument("name", metavar="NAME", nargs="?", help="name of the sweep (default: the newest)")
    ui.add_argument("--storage", metavar="FOLDER|URI", help=STORAGE_HELP)
    ui.add_argument("--port", type=int, default=5000, help="port of the server on loopback (default: 5000)")
    return parser


def _spec_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any key of the sweep file, dotted")
    parser.add_argument("--name", help="name of the sweep, instead of the file's")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow tracking server, instead of the file's")


def _cluster_options(parser: argparse.ArgumentParser) -> None:
    told = "Ray cluster to join, HOST:PORT (default: RAY_ADDRESS, else a local Ray); with `resume` also a dashboard, http://..."
    parser.add_argument("--address", help=told)
    parser.add_argument("--quiet", action="store_true", help="no progress")


if __name__ == "__main__":
    sys.exit(main())
