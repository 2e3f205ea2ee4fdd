"""The command line: from the arguments to a command, its exit code and its errors. The commands are in commands/table.py.

A --json answer goes to stdout alone; progress and errors go to stderr. Exit codes are in errors.py; that of a signal is 128 and
its number.
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
from orchestrator.cluster.addresses import is_jobs_api, jobs_api_of_environment
from orchestrator.command_line import command, note_options
from orchestrator.commands.parser import make_parser
from orchestrator.commands.table import COMMANDS, Reach
from orchestrator.errors import EXIT_SIGINT, SetupError, SweepError, with_code
from orchestrator.process.output import STDOUT, reserve_stdout
from orchestrator.process.setup import prepare_process, require_current_folder
from orchestrator.uris import require_no_credentials
from trainables.errors import StorageError, StorageFullError
from trainables.runtime.secrets import without_secrets
from trainables.wording import without_controls

STORAGE_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; prints errors that a user can cause as a message without a traceback."""
    if arguments is None:  # then the process belongs to the command
        prepare_process()
    options = make_parser().parse_args(arguments)
    try:
        require_current_folder()
        for option in ("storage", "tracking_uri"):  # before one is sent or written anywhere
            require_no_credentials(
                f"--{option.replace('_', '-')}", getattr(options, option, None) or "", storage=option == "storage"
            )
        note_options(options)
        with reserve_stdout(getattr(options, "json", False) or COMMANDS[options.command].prints_answer):
            code = int(_function(options)(options))
        sys.stdout.flush()
        return code
    except SweepError as error:
        return _print_error(error)
    except StorageError as error:
        if isinstance(error, StorageFullError):
            hint = f"free space there, or make it writable (`{command('gc')}` shows what no sweep needs)"
            return _print_error(SetupError(error.message, hint, code="storage-full"))
        return _print_error(SetupError(error.message, error.hint, code="storage-unavailable"))
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            return _print_bug()
        if error.filename == STDOUT:
            return _print_error(SetupError(f"{STDOUT}: {error.strerror}", "make room there", code="output-not-writable"))
        message = f"{error.filename or 'storage'}: {error.strerror}"
        hint = "make room there, or give another folder: --storage, or DRIVE_SWEEP_CACHE for decoded images"
        return _print_error(SetupError(message, hint, code="storage-unavailable"))
    except KeyboardInterrupt:
        return EXIT_SIGINT
    except Exception:
        return _print_bug()


def _print_bug() -> int:
    """Prints the current exception as a bug, and returns the exit code."""
    return _print_error(driver_bug(traceback.format_exc()))


def _print_error(error: SweepError) -> int:
    print(f"drive-sweep: {without_controls(without_secrets(with_code(str(error), error.code)))}", file=sys.stderr)
    return error.exit_code


def _function(options: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """The function of a command; if --address is a Jobs API, the one of the same name that works through it."""
    command, address = COMMANDS[options.command], getattr(options, "address", None)
    through_jobs = {
        Reach.HERE: False,
        Reach.JOBS: True,
        Reach.ASKS_JOBS: bool(address),
        Reach.LISTS: not getattr(options, "storage", None) and bool(address or jobs_api_of_environment()),
        Reach.JOINS: bool(address) and is_jobs_api(address),
    }[command.reach]
    module = import_module(f"{command_modules.__name__}.{'jobs' if through_jobs else command.module}")
    function: Callable[[argparse.Namespace], int] = getattr(module, command.function)
    return function


if __name__ == "__main__":
    sys.exit(main())
