"""What decides the keys of a sweep's trials besides their configurations: the data, and the user's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainables.config.keys import inputs_digest, trial_key, warmup_key
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import custom_references, without_method
from trainables.data.facts import DataFacts
from trainables.data.split_counts import split_versions


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """The inputs of all trials of a plan.

    Attributes:
        data_facts: without them keys are as versions made them that had none.
        custom_files: their digests and versions count here, not their places.
    """

    data_digest: str
    data_facts: DataFacts | None
    custom_files: CustomFiles

    def keys_of(self, config: TrialConfig) -> tuple[str, str]:
        """The keys of a trial on these inputs, and of its warm-up."""
        versions: tuple[dict[str, int], dict[str, int]] = ({}, {})
        if self.data_facts is not None:
            versions = split_versions(config, self.data_facts.train_counts, self.data_facts.test_counts)
        of_trial = inputs_digest(self.data_digest, self.custom_files.identities_of(config), versions[0])
        of_warmup = inputs_digest(self.data_digest, self.custom_files.identities_of(without_method(config)), versions[1])
        return trial_key(config, of_trial), warmup_key(config, of_warmup)

    def know(self, config: TrialConfig) -> bool:
        """Whether they name every file of the user's that the trial uses."""
        return self.custom_files.digests.keys() >= set(custom_references(config).values())

    def to_record(self) -> dict[str, Any]:
        """As fields of trials.json."""
        return {
            "data_digest": self.data_digest,
            "data_facts": self.data_facts and self.data_facts.to_json(),
            "own_digests": self.custom_files.digests,
            "own_versions": self.custom_files.versions,
        }

    @staticmethod
    def from_record(record: Mapping[str, Any], custom_files: CustomFiles) -> Inputs:
        """The inputs in a trials.json.

        Args:
            custom_files: where the files are.
        """
        facts = record.get("data_facts")
        return Inputs(
            data_digest=record["data_digest"],
            data_facts=DataFacts.from_json(facts) if facts else None,
            custom_files=replace(
                custom_files, digests=record.get("own_digests") or {}, versions=record.get("own_versions") or {}
            ),
        )
