"""What the errors of an object store mean, and how to fix them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainables.wording import shortened

MAX_REASON = 200  # characters of pyarrow's message


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """An error that we understand.

    Attributes:
        codes: words of which one is in pyarrow's message.
        problem: what is wrong, as a format of bucket, endpoint, region and reason.
        hint: how to fix it.
    """

    codes: tuple[str, ...]
    problem: str
    hint: str


NO_SUCH_BUCKET = ErrorRule(
    ("NO_SUCH_BUCKET",), "there is no bucket {bucket!r} at {endpoint}", "create it, or give another --storage"
)
UNKNOWN = ErrorRule((), "it does not work ({reason})", "check the URI and the store")


def explain(message: str, rules: Iterable[ErrorRule], **facts: str | None) -> tuple[str, str]:
    """The problem and the hint for an error message of pyarrow."""
    reason = (message.partition("AWS Error ")[2] or message).partition(" (Request ID")[0]
    rule = next((rule for rule in rules if any(code in reason for code in rule.codes)), UNKNOWN)
    return rule.problem.format(reason=shortened(reason.strip(), MAX_REASON), **facts), rule.hint
