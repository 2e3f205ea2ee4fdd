"""Which finished trials of a sweep were made with an earlier version of a file of the user's, as its trials.json tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.state.sweep_folder import SweepFolder
from trainables.wording import counted

FIELD = "accepted_changes"  # of trials.json
SHOWN_DIGITS = 12  # of a SHA-256

Files = Mapping[str, str]  # file -> SHA-256


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierFile:
    """A file that some of the trials were made with, and is not that of the others; `of` counts all of them."""

    file: str
    sha256: str
    trials: int
    of: int

    @property
    def sentence(self) -> str:
        verb = "was" if self.trials == 1 else "were"
        return (
            f"{self.trials} of {counted(self.of, 'trial')} {verb} made with an earlier {files_text({self.file: self.sha256})}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def files_text(files: Files) -> str:
    """Files by their names and the first digits of their SHA-256."""
    return " and ".join(f"{file} (SHA-256 {sha256[:SHOWN_DIGITS]})" for file, sha256 in files.items())


def kept_trials(folder: SweepFolder) -> dict[str, Files]:
    """Trial key -> the earlier files that it was made with; only of trials that stayed after such a change."""
    record = folder.storage.read_json(folder.file("trials.json"), fields=("trials",)) or {}
    kept: dict[str, Files] = (record.get(FIELD) or {}).get("finished", {})
    return kept


def earlier_files(kept: Mapping[str, Files], keys: Collection[str]) -> list[EarlierFile]:
    """The earlier files among finished trials, most trials first.

    Args:
        kept: as `kept_trials` reads them.
    """
    counts = Counter(pair for key in keys for pair in kept.get(key, {}).items())
    return [EarlierFile(file=file, sha256=sha256, trials=count, of=len(keys)) for (file, sha256), count in counts.most_common()]
