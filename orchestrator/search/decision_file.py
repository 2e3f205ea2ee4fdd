"""decisions.jsonl in a sweep's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.search.decisions import Decision, from_text, to_text
from orchestrator.storage.base import Storage


@dataclass(frozen=True, slots=True)
class DecisionFile:
    """The decisions of one sweep (DecisionLog)."""

    storage: Storage
    sweep: str

    @property
    def path(self) -> str:
        return f"sweeps/{self.sweep}/decisions.jsonl"

    def read(self) -> list[Decision]:
        """All whole lines. Raises UserError if one is damaged, since what followed cannot be replayed without it."""
        content = self.storage.read(self.path)
        try:
            return from_text((content or b"").decode())
        except ValueError as error:
            raise UserError(
                f"{self.path} of storage {self.storage.root}: {error}",
                f"move the file away and run `{command('resume', self.sweep)}`: finished trials stay, the search decides anew",
                code="decisions-damaged",
            ) from error

    def set_aside(self) -> None:
        """Moves the file to the first free decisions-N.jsonl, so that the search decides anew."""
        content = self.storage.read(self.path)
        if content is not None:
            names = (f"sweeps/{self.sweep}/decisions-{number}.jsonl" for number in count(1))
            self.storage.write(next(name for name in names if not self.storage.exists(name)), content)
            self.storage.remove(self.path)

    def write(self, decisions: Sequence[Decision]) -> None:
        self.storage.append_durably(self.path, to_text(decisions))
