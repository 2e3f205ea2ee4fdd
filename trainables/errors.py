"""The ways in which a trial can fail that we understand; each has a kind, which decides what happens next."""

from __future__ import annotations

from typing import ClassVar


class TrialError(Exception):
    """A failure of one trial. `kind` goes into its record and decides whether it is tried again. Its text is "message; hint".

    Attributes:
        message: the place, the rule and the value.
        hint: how to fix it; empty where the message says it all.
    """

    kind: ClassVar[str] = "code"

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def kind_of(error: BaseException) -> str:
    """The kind of any failure; what we do not understand is an error of code."""
    if isinstance(error, TrialError):
        return error.kind
    # By name, so that a driver without torch can ask too.
    return "oom" if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" else "code"


class NonFiniteError(TrialError):
    """A loss or a score became infinite or not a number; trying again would give the same."""

    kind = "nonfinite"


class DataError(TrialError):
    """The data set is missing, damaged or too small for what the configuration asks of it."""

    kind = "data"


class ConfigError(TrialError):
    """The configuration asks for something that the network cannot give, such as a layer that it does not have."""

    kind = "setting"


class StaleAttemptError(TrialError):
    """A newer attempt at the same trial has begun; this one must not publish anything more."""

    kind = "superseded"


class WrongNodeError(TrialError):
    """This node lacks what the trial needs, such as the data or the storage; another node may have it."""

    kind = "misplaced"


class MissingFileError(WrongNodeError):
    """This node lacks a file that this trial needs and others may not, such as a module of the user's."""

    kind = "unprovided"


class StopRequestedError(TrialError):
    """The sweep is being stopped; the trial has left a checkpoint and will continue from it."""

    kind = "stopped"


class StorageError(TrialError, OSError):
    """The storage cannot be reached or used. It may come back, so the trial is tried again; its record says nothing of it."""

    kind = "storage"
