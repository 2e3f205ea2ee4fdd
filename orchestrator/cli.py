"""The command line: the options of each command. What it does is in commands/.

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
API_HELP = "URL of the cluster's dashboard, http://HEAD:8265; query the sweep's newest job there"
FILE_HELP = "sweep file, or the name of a preset such as digits or reference/cifar10-vgg16 (README)"


MODULES = {  # command -> module of `commands/` with a function of that name
    **dict.fromkeys(("init", "schema", "plan", "trial"), "sweep_file"),
    **dict.fromkeys(("run", "resume", "stop"), "run"),
    **dict.fromkeys(("status", "logs", "report", "compare", "ui"), "results"),
    **dict.fromkeys(("doctor", "sync"), "maintenance"),
    "data": "data",
    "guide": "guide",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; prints errors that a user can cause as a message without a traceback."""
    if arguments is None:  # then the process belongs to the command
        prepare_process()
    options = _parser().parse_args(arguments)
    try:
        require_current_folder()
        for option in ("storage", "tracking_uri"):  # before one is sent or written anywhere
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
    """The function of a command; if --address is a Jobs API, the one of the same name that works through it."""
    name, address = options.command, getattr(options, "address", None)
    joins = name in ("run", "resume", "doctor") and not is_jobs_api(address)  # a driver joins a cluster at HOST:PORT
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
    init.add_argument("--from", dest="preset", metavar="NAME", help="start from a preset, such as reference/cifar10-vgg16")
    init.add_argument("path", nargs="?", default="sweep.yaml", help="file to write (default: sweep.yaml)")

    plan = command("plan", "show what would run: trials, shared warm-ups, reused results, cost", file=True, json=True)
    plan.add_argument("--hash", action="store_true", help="read the data to compute its digest, so that reuse can be shown")

    data = command(
        "data", "check the data: counts, files, duplicates, and a picture of what the network sees", file=True, json=True
    )
    data.add_argument("--out", metavar="PNG", help="file of the picture (default: NAME-data.png)")

    command("schema", "print the JSON Schema of the sweep file, for editors")

    trial = command("trial", "run one trial in the foreground, without Ray; FILE may be a trial's key", file=True, json=True)
    trial.add_argument("--index", type=int, help="which trial of the file, counted from 0 as in `plan`")

    run = command("run", "run a sweep; running it again continues it", file=True, json=True)
    run.add_argument("--recompute", action="store_true", help="archive the results of earlier runs and compute them again")
    _cluster_options(run)

    submit = command("submit", "run a sweep as a job of a cluster, independently of this machine", file=True, json=True)
    submit.add_argument("--address", help="dashboard of the cluster, http://HEAD:8265 (default: RAY_API_SERVER_ADDRESS)")
    submit.add_argument("--wait", action="store_true", help="print the output of the job, and exit with its code")

    jobs = command("list", "list the sweeps that were submitted to a cluster, newest first", json=True)
    jobs.add_argument("--address", help="dashboard of the cluster, http://HEAD:8265 (default: RAY_API_SERVER_ADDRESS)")
    jobs.set_defaults(command="list_jobs")  # `list` is a built-in name

    resume = command("resume", "run the trials that failed or did not finish", sweep=True, json=True)
    resume.add_argument(
        "--only", choices=["failed", "unfinished"], help="only failed trials, or only the other unfinished ones"
    )
    resume.add_argument("--trial", metavar="KEY", action="append", help="only this trial; may be repeated")
    resume.add_argument("--from-scratch", action="store_true", help="ignore checkpoints")
    resume.add_argument("--dry-run", action="store_true", help="only show what would run")
    resume.add_argument("--wait", action="store_true", help="with the address of a dashboard: print the output of the job")
    _cluster_options(resume)

    status = command("status", "show the state of a sweep", sweep=True, json=True)
    status.add_argument("--address", help=API_HELP)

    logs = command("logs", "show the log of a sweep", sweep=True)
    logs.add_argument("--trial", metavar="KEY", help="only this trial: its lines, and its error with the traceback")
    logs.add_argument("--follow", "-f", action="store_true", help="print new lines until the sweep ends")
    logs.add_argument("--address", help=API_HELP)

    stop = command("stop", "stop a running sweep; `resume` continues it", sweep=True)
    stop.add_argument("--trial", metavar="KEY", help="stop only this trial")
    stop.add_argument("--address", help=API_HELP)

    sync = command("sync", "update MLflow from the trial folders", sweep=True, json=True)
    sync.add_argument("--tracking-uri", metavar="URI", help="MLflow tracking server, instead of the sweep's")

    report = command("report", "show the results: a table, heat maps, the best trials", sweep=True, json=True)
    report.add_argument("--html", metavar="FILE", help="write the report as one HTML file")
    report.add_argument("--address", help=API_HELP)

    doctor = command("doctor", "check storage, tracking, data and every node before a sweep; repair after a crash", json=True)
    doctor.add_argument("file", metavar="FILE", nargs="?", help=FILE_HELP + "; without it the data is not checked")
    _spec_options(doctor)
    doctor.add_argument("--storage", metavar="FOLDER", help="where results are kept (default: ./runs)")
    doctor.add_argument("--fix", action="store_true", help="archive trials with damaged records, to be computed again")
    doctor.add_argument("--address", help="Ray cluster to check, HOST:PORT or a dashboard, http://... (default: this machine)")

    compare = command(
        "compare", "compare a method with every other: accuracy, with a paired test over seeds, and time", sweep=True, json=True
    )
    compare.add_argument("--masks", action="store_true", help="compare the masks too, which reads the models")
    compare.add_argument("--method", metavar="METHOD", help="the method to compare with the others (default: drive)")

    guide = command("guide", "print the guide: without a topic, the list of topics")
    guide.add_argument("topic", metavar="TOPIC", nargs="?", help="such as methods or results")

    ui = command("ui", "open the MLflow UI for a sweep, and print the link that compares all its trials")
    ui.add_argument("name", metavar="NAME", nargs="?", help="name of the sweep (default: the newest)")
    ui.add_argument("--storage", metavar="FOLDER|URI", help=STORAGE_HELP)
    ui.add_argument("--port", type=int, default=5000, help="port of the server on loopback (default: 5000)")
    return parser


def _spec_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="any key of the sweep file, dotted")
    parser.add_argument("--name", help="name of the sweep, instead of the file's")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow tracking server, instead of the file's")


def _cluster_options(parser: argparse.ArgumentParser) -> None:
    help_ = (
        "Ray cluster to join, HOST:PORT (default: RAY_ADDRESS, else a local Ray); with `resume` also a dashboard, http://..."
    )
    parser.add_argument("--address", help=help_)
    parser.add_argument("--quiet", action="store_true", help="no progress")


if __name__ == "__main__":
    sys.exit(main())
