"""The ways in which a trial can fail that we understand, each with its kind.

What follows from a kind, such as another try, is in orchestrator/scheduling/retry_policy.py.
"""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    """Why an attempt did not finish. The values are stored in error.json and in MLflow tags."""

    CODE = "code"
    OUT_OF_MEMORY = "oom"
    NON_FINITE = "nonfinite"
    DATA = "data"
    CONFIG = "setting"
    STALE_ATTEMPT = "superseded"
    WRONG_NODE = "misplaced"
    MISSING_FILE = "unprovided"
    STOPPED = "stopped"
    STORAGE = "storage"
    WORKER_LOST = "lost"
    NODE_LOST = "lost_node"
    HANG = "hang"
    STORAGE_FULL = "full"


# The kinds with which a trial may be failed for good; after the others it goes on somewhere, or is stopped.
FINAL_KINDS = (
    FailureKind.CODE,
    FailureKind.CONFIG,
    FailureKind.DATA,
    FailureKind.NON_FINITE,
    FailureKind.OUT_OF_MEMORY,
    FailureKind.HANG,
    FailureKind.WORKER_LOST,
    FailureKind.STORAGE,
)

# In the texts of the RuntimeErrors that PyTorch raises where it is not its GPU allocator that found no memory: its allocator of
# a CPU, CUDA itself, and the libraries that take memory of their own, as for the handle that a process opens on a shared GPU;
# the last two are NCCL's.
OUT_OF_MEMORY_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "Cuda failure 2 'out of memory'",
    "Cuda failure 'out of memory'",
)


class TrialError(Exception):
    """A failure of one trial. Its text is "message; hint".

    Attributes:
        kind: goes into the trial's record; orchestrator/scheduling/retry_policy.py says what it leads to.
        message: what is wrong, with the rule and the value.
        hint: how to fix it; empty where the message says it all.
    """

    kind: FailureKind = FailureKind.CODE

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def kind_of(error: BaseException) -> FailureKind:
    """The kind of any failure; unknown ones count as errors in the code."""
    if isinstance(error, TrialError):
        return error.kind
    # By name, so that a driver without torch can ask too.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return FailureKind.OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY_TEXTS):
        return FailureKind.OUT_OF_MEMORY
    return FailureKind.CODE


class NonFiniteError(TrialError):
    """A loss or a score became infinite or not a number; trying again would give the same."""

    kind = FailureKind.NON_FINITE


class DataError(TrialError):
    """The data set is missing, damaged or too small for the configuration."""

    kind = FailureKind.DATA


class ConfigError(TrialError):
    """The network cannot do what the configuration asks for, such as excluding a layer that it does not have."""

    kind = FailureKind.CONFIG


class StaleAttemptError(TrialError):
    """A newer attempt at the same trial has started; this one must not publish anything more."""

    kind = FailureKind.STALE_ATTEMPT


class WrongNodeError(TrialError):
    """This node lacks what the trial needs, such as the data or the storage; another node may have it."""

    kind = FailureKind.WRONG_NODE


class MissingFileError(WrongNodeError):
    """This node lacks a file that this trial needs and others may not, such as a custom module."""

    kind = FailureKind.MISSING_FILE


class WorkerLostError(TrialError):
    """Another worker of the trial was lost, or its node; the trial goes on from its checkpoint with new ones."""

    kind = FailureKind.WORKER_LOST


class OtherWorkerError(TrialError):
    """Another worker of the trial has failed, for a reason of the given kind.

    Attributes:
        node: where that worker is; empty where it is not known.
        place, traceback: of its error.
    """

    def __init__(self, kind: FailureKind, message: str, node: str = "", place: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.node = node
        self.place = place
        self.traceback = traceback


class StopRequestedError(TrialError):
    """The sweep is being stopped; the trial has left a checkpoint and will continue from it."""

    kind = FailureKind.STOPPED


class StorageError(TrialError, OSError):
    """The storage cannot be reached or used. It may come back, so the trial is tried again; its record says nothing of it."""

    kind = FailureKind.STORAGE


class StorageFullError(StorageError):
    """The storage can take no more: it is full, a quota is spent, or it became read-only. Only somebody can help it."""

    kind = FailureKind.STORAGE_FULL
