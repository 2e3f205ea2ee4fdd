"""What can go wrong outside a trial; each error knows the exit code of the command that it ends."""

from __future__ import annotations

import re

EXIT_DONE = 0
EXIT_TRIALS_FAILED = 1
EXIT_USER = 2
EXIT_ENVIRONMENT = 3
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_SIGINT = 130
CODE = re.compile(r" \[([a-z0-9]+(?:-[a-z0-9]+)*)\]\s*\Z")


def with_code(text: str, code: str) -> str:
    """A message as commands print it: "MESSAGE; HINT [CODE]"."""
    return f"{text} [{code}]" if code else text


def split_code(text: str) -> tuple[str, str]:
    """A printed message without its code, and the code; empty if it has none."""
    match = CODE.search(text)
    return (text[: match.start()], match[1]) if match else (text, "")


class SweepError(Exception):
    """Ends a command with its exit code and one message, without a traceback. Its text is "message; hint".

    Attributes:
        message: the place, the rule and the value.
        hint: how to fix it; empty where the message says it all.
        code: short stable name such as "sweep-not-found", to search for and to test by; printed behind the message.
    """

    exit_code = EXIT_ENVIRONMENT

    def __init__(self, message: str, hint: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UserError(SweepError):
    """What the user wrote is wrong: a file, an option, a name."""

    exit_code = EXIT_USER


class SetupError(SweepError):
    """The storage, the cluster, the tracking server or the data of a node is not as it must be."""

    exit_code = EXIT_ENVIRONMENT


class DriverBugError(SweepError):
    """A bug of drive-sweep itself; see bug_report.py. Its text is the message, the traceback and the hint."""

    exit_code = EXIT_BUG

    def __init__(self, message: str, hint: str, *, traceback: str) -> None:
        super().__init__(message, hint, code="driver-bug")
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.message}\n{self.traceback}\n{self.hint}"
