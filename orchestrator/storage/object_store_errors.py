"""What the errors of an object store mean, and how to fix them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainables.errors import StorageError, StorageFullError
from trainables.wording import shortened

MAX_REASON = 200  # characters of pyarrow's message


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """An error that we understand.

    Attributes:
        codes: words of which one is in pyarrow's message.
        problem: what is wrong, as a format of bucket, endpoint, region and reason.
        hint: how to fix it.
        is_full: the store can take no more.
    """

    codes: tuple[str, ...]
    problem: str
    hint: str
    is_full: bool = False


NO_SUCH_BUCKET = ErrorRule(
    ("NO_SUCH_BUCKET",), "there is no bucket {bucket!r} at {endpoint}", "create it, or give another --storage"
)
FULL = ErrorRule(  # HTTP 507, or 403 with the name of a quota
    ("HTTP status 507", "QuotaExceeded", "QUOTA_EXCEEDED", "StorageFull", "STORAGE_FULL", "InsufficientStorage"),
    "it can take no more ({reason})",
    "",
    is_full=True,
)
UNKNOWN = ErrorRule((), "it does not work ({reason})", "check the URI and the store")


def explain(message: str, rules: Iterable[ErrorRule], place: str, **facts: str | None) -> StorageError:
    """The error of a storage for a message of pyarrow.

    Args:
        place: what the message begins with.
        facts: those that the rules' problems name.
    """
    reason = (message.partition("AWS Error ")[2] or message).partition(" (Request ID")[0]
    rule = next((rule for rule in rules if any(code in reason for code in rule.codes)), UNKNOWN)
    problem = rule.problem.format(reason=shortened(reason.strip(), MAX_REASON), **facts)
    return (StorageFullError if rule.is_full else StorageError)(f"{place}: {problem}", rule.hint)
