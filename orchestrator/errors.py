"""What can go wrong outside a trial; each error knows the exit code of the command that it ends.

A message names the place, the rule, the value and the way out.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_TRIALS_FAILED = 1
EXIT_USER = 2
EXIT_ENVIRONMENT = 3
EXIT_SIGINT = 130


class SweepError(Exception):
    """Ends a command with its exit code and its message, without a traceback."""

    exit_code = EXIT_ENVIRONMENT


class UserError(SweepError):
    """What the user wrote is wrong: a file, an option, a name."""

    exit_code = EXIT_USER


class SetupError(SweepError):
    """The storage, the cluster, the tracking server or the data of a node is not as it must be."""

    exit_code = EXIT_ENVIRONMENT
