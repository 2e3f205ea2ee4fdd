"""The plan of a sweep: its trials, the warm-ups that they share, and what is finished already.

Keys need the digest of the data; a plan without it shows no reuse, and why. Never imports torch or ray.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.planning.accepted_changes import NO_CHANGES, AcceptedChanges, LastRun
from orchestrator.planning.entries import EarlyStop, PlannedTrial, PlannedWarmup
from orchestrator.planning.inputs import Inputs
from orchestrator.planning.known_data import known_data
from orchestrator.process.patience import FUNCTION_S, limit_s
from orchestrator.spec.grid import representative_trials
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.trial_names import trial_names
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from trainables.config.keys import warmup_key
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import is_custom
from trainables.data import datasets
from trainables.data.facts import DataFacts
from trainables.data.source import DatasetSource
from trainables.data.split_checks import split_findings, split_lines
from trainables.data.split_counts import split_counts
from trainables.errors import ConfigError, DataError
from trainables.models.image_sizes import image_size_problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What `run` would do.

    Attributes:
        data_digest: names the content of the data; None while it is not known.
        data_facts: image shape, classes and counts of the data; None while they are not known.
        custom_files: the user's own files; `custom_files.digests` names their content.
        damage: trials with a result that is no longer what was written, and so counts as none; by key, with the reason.
        outline: of a search, trials at the bounds of its space, which stand for those that are not known yet in checks.
        stopped: trial key -> its early stop by a search; a trial that was taken on to its end is not among them.
        tags: trial key -> what a search says of the trial, for its MLflow run.
        settled: no further trials will join the plan.
        last_run: of this sweep; None before the first.
        accepted: the trials that stay in the sweep though they were made with earlier files of the user's.
    """

    spec: SweepSpec
    trials: tuple[PlannedTrial, ...]
    data_digest: str | None
    data_problem: str
    custom_files: CustomFiles
    data_facts: DataFacts | None = None
    damage: Mapping[str, str] = field(default_factory=dict)
    outline: tuple[PlannedTrial, ...] = ()
    stopped: Mapping[str, EarlyStop] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    settled: bool = True
    last_run: LastRun | None = None
    accepted: AcceptedChanges = NO_CHANGES

    @property
    def checked(self) -> Plan:
        """The plan whose trials show what checks before the start need to know: of a search, those of its outline."""
        return replace(self, trials=self.outline, outline=()) if self.outline else self

    @property
    def source(self) -> DatasetSource:
        """Where the data are on this host; of a data function also which arrays it has to return."""
        return replace(self.spec.source(), arrays_digest=self.data_facts.arrays_digest if self.data_facts else None)

    @property
    def unfinished(self) -> list[PlannedTrial]:
        """The trials that have no result and were not stopped early."""
        return [trial for trial in self.trials if trial.result is None and trial.key not in self.stopped]

    def keys(self) -> set[str]:
        """The keys of all trials, and of the warm-ups that they share."""
        return {one for trial in self.trials for one in (trial.key, self.shared_warmup_key(trial)) if one}

    def trial(self, key: str) -> PlannedTrial:
        """Raises KeyError if the plan has no such trial."""
        for trial in reversed(self.trials):  # a search asks for its latest ones
            if trial.key == key:
                return trial
        raise KeyError(key)

    def keys_of(self, config: TrialConfig) -> tuple[str, str]:
        """The keys of a trial on these inputs, and of its warm-up; empty while the digest of the data is not known."""
        return ("", "") if self.inputs is None else self.inputs.keys_of(config)

    @property
    def inputs(self) -> Inputs | None:
        """What decides keys besides configurations; None while the digest of the data is not known."""
        return _inputs(self.data_digest, self.data_facts, self.custom_files)

    def planned(self, config: TrialConfig, name: str, key: str = "", result: dict[str, Any] | None = None) -> PlannedTrial:
        """A trial that joins the plan.

        Args:
            key: of a trial that stays though it was made with earlier files; by default that under the present ones.
        """
        keys = self.keys_of(config)
        if key not in ("", keys[0]):
            keys = self.accepted.keys_of(config) or keys
        return PlannedTrial(name=name, config=config, key=keys[0], warmup_key=keys[1], result=result)

    def with_trial(self, trial: PlannedTrial) -> Plan:
        """The plan with one more trial, or another state of one."""
        if any(one.key == trial.key for one in self.trials):
            return replace(self, trials=tuple(trial if one.key == trial.key else one for one in self.trials))
        return replace(self, trials=(*self.trials, trial))

    def shared_warmup_key(self, trial: PlannedTrial) -> str | None:
        """Key of the warm-up that the trial shares with others; None if it shares none."""
        return trial.warmup_key if self.spec.share_warmups and trial.uses_shared_warmup else None

    def without_results(self, keys: Container[str]) -> Plan:
        """The plan with these trials unfinished, under the keys of the present files."""
        return replace(
            self, trials=tuple(self.planned(one.config, one.name) if one.key in keys else one for one in self.trials)
        )

    def without_earlier_files(self, storage: Storage) -> Plan:
        """The plan in which no trial stays that was made with earlier files of the user's."""
        if not self.accepted.changes:
            return self
        trials, damage = with_results([self.planned(one.config, one.name) for one in self.trials], NO_CHANGES, storage)
        return replace(self, trials=tuple(trials), accepted=NO_CHANGES, damage=damage)

    def warmups(self, unfinished_only: bool = False) -> list[PlannedWarmup]:
        """The shared warm-ups, longest first."""
        members: dict[str, list[PlannedTrial]] = {}
        for trial in self.unfinished if unfinished_only else self.trials:
            if trial.uses_shared_warmup:
                members.setdefault(trial.warmup_key or _prefix_without_data(trial.config), []).append(trial)
        warmups = []
        for key, trials in members.items():
            lengths = sorted({length for trial in trials for length in trial.config.warmup_lengths})
            name = f"warmup-r{trials[0].config.seed}-{key[:6]}"
            planned = PlannedWarmup(key=key, name=name, config=trials[0].config, lengths=tuple(lengths), trials=len(trials))
            warmups.append(planned)
        return sorted(warmups, key=lambda warmup: -warmup.lengths[-1])

    def epochs(self) -> dict[str, int]:
        """Epochs that are left to train, with a warm-up for each trial and with shared ones."""
        sparse = sum(trial.config.level_epochs + trial.config.sparse_epochs for trial in self.unfinished)
        unshared = sum(max(trial.config.warmup_lengths, default=0) for trial in self.unfinished)
        shared = sum(warmup.lengths[-1] for warmup in self.warmups(unfinished_only=True))
        return {"unshared": sparse + unshared, "shared": sparse + (shared if self.spec.share_warmups else unshared)}

    def reused_by_revision(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for trial in self.trials:
            if trial.result is not None:
                revision = str(trial.result.get("revision") or "unknown")
                counts[revision] = counts.get(revision, 0) + 1
        return counts

    def split_lines(self, only_uneven: bool = False) -> list[str]:
        """The size of each split and, where classes differ, the sizes of its classes; empty while they are not known."""
        if self.data_facts is None:
            return []
        facts, lines = self.data_facts, []
        configs = dict.fromkeys(trial.config.dataset for trial in self.trials)
        for config in configs:
            prefix = f"dataset.limit {config.limit}, validation {config.validation:g}: " if len(configs) > 1 else ""
            counts = split_counts(config, facts.train_counts, facts.test_counts)
            lines += [prefix + line for line in split_lines(counts, facts.classes, only_uneven)]
        return list(dict.fromkeys(lines))


def make_plan(
    spec: SweepSpec,
    storage: Storage,
    hash_data: bool = False,
    digest: str | None = None,
    facts: DataFacts | None = None,
    decided: Sequence[TrialConfig] | None = None,
    record: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of a sweep.

    Args:
        record: the sweep's trials.json, if it was run before.
        decided: of a search, the trials that it has begun and its baselines; checks look at the bounds of its space.
        hash_data: read the data to make their digest if it is not known; without it the plan may show no reuse.
        digest: the recorded digest, for commands that only read records; neither the data nor custom files need to exist then,
            and `record` names these.
        facts: the recorded facts of the data; older records have none.

    Raises:
        UserError: `hash_data` is set and the data, or custom files, are not where the sweep file says.
    """
    source, custom_files, configs = spec.source(), spec.custom_files(), representative_trials(spec)
    last_run = LastRun.from_record(record, custom_files) if record else None
    if digest is not None:
        custom_files = last_run.inputs.custom_files if last_run else custom_files
        return _planned(spec, storage, configs, custom_files, digest, facts, decided=decided, last_run=last_run)
    problem = ""
    if is_custom(source.name) and source.root and storage.folder and _holds(source.root, storage.folder):
        raise UserError(
            f"dataset.root: {source.root!r} holds the storage {storage.root}, so its content would change with every result",
            "give the folder of the data alone, or another --storage",
            code="storage-in-data",
        )
    if spec.timings is None and any(config.uses_timings for config in configs):
        raise UserError(
            "timings: must be given with target.latency, got none",
            f"`{command('timings', '--out', 'timings.json')}` measures a table; then write timings: ./timings.json",
            code="timings-missing",
        )
    try:
        custom_files = custom_files.with_digests(configs)
        if hash_data:
            datasets.download_if_missing(source)
        digest, facts = known_data(storage, source, custom_files, hash_data, limit_s(spec.stage_timeout, FUNCTION_S))
    except (DataError, ConfigError) as error:
        if hash_data:
            raise UserError(error.message, error.hint, code="data-unusable") from error
        problem = str(error)
    if facts is not None:
        _require_possible_splits(configs, facts)
        _require_image_size(configs, facts)
    return _planned(spec, storage, configs, custom_files, digest, facts, problem, decided, last_run)


def _require_possible_splits(configs: Sequence[TrialConfig], facts: DataFacts) -> None:
    findings = dict.fromkeys(finding for config in configs for finding in split_findings(config, facts))
    if errors := [str(finding) for finding in findings if finding.severity == "error"]:
        raise UserError("\n".join(errors), code="split-impossible")


def recorded_plan(
    spec: SweepSpec, storage: Storage, record: dict[str, Any], decided: Sequence[TrialConfig] | None = None
) -> Plan:
    """The plan of a sweep from its trials.json; neither the data nor custom files need to exist.

    Args:
        decided: see `make_plan`.
    """
    facts = record.get("data_facts")
    return make_plan(
        spec,
        storage,
        digest=record["data_digest"],
        facts=DataFacts.from_json(facts) if facts else None,
        decided=decided,
        record=record,
    )


def _require_image_size(configs: Sequence[TrialConfig], facts: DataFacts) -> None:
    """Checks images of a custom data set, which have any size; those of others were checked with the sweep file.

    Raises:
        UserError: a built-in network of the sweep does not support their size.
    """
    models = dict.fromkeys(config.model for config in configs if not is_custom(config.model))
    problems = [problem for model in models if (problem := image_size_problem(model, *facts.image_shape[1:]))]
    if problems:
        raise UserError("\n".join(map(str, problems)), code="image-size-unsupported")


def _holds(folder: str, other: Path) -> bool:
    return other.resolve().is_relative_to(Path(folder).expanduser().resolve())


def _planned(
    spec: SweepSpec,
    storage: Storage,
    configs: Sequence[TrialConfig],
    custom_files: CustomFiles,
    digest: str | None,
    facts: DataFacts | None,
    problem: str = "",
    decided: Sequence[TrialConfig] | None = None,
    last_run: LastRun | None = None,
) -> Plan:
    inputs = _inputs(digest, facts, custom_files)

    def planned(configs: Sequence[TrialConfig]) -> list[PlannedTrial]:
        keys = [inputs.keys_of(config) if inputs else ("", "") for config in configs]
        rows = zip(trial_names(configs, outline), configs, keys, strict=True)
        return [PlannedTrial(name=name, config=config, key=key, warmup_key=warmup) for name, config, (key, warmup) in rows]

    outline = () if decided is None else configs
    trials = planned(configs if decided is None else decided)
    accepted = NO_CHANGES
    damage: dict[str, str] = {}
    if inputs:
        accepted = last_run.accepted_under(inputs) if last_run else NO_CHANGES
        trials, damage = with_results(trials, accepted, storage)
    return Plan(
        spec=spec,
        trials=tuple(trials),
        data_digest=digest,
        data_problem=problem,
        custom_files=custom_files,
        data_facts=facts,
        damage=damage,
        outline=tuple(planned(outline)),
        last_run=last_run,
        accepted=accepted,
    )


def with_results(
    trials: Sequence[PlannedTrial], accepted: AcceptedChanges, storage: Storage
) -> tuple[list[PlannedTrial], dict[str, str]]:
    """Trials under the keys of the present files -> the same with their results, under earlier keys where they stay; damage.

    A trial that stays and whose record is damaged or gone is one to run, with the present files.
    """
    earlier = {trial.key: keys for trial in trials if accepted.changes and (keys := accepted.keys_of(trial.config))}
    results, damage = read_results(storage, [trial.key for trial in trials] + [key for key, _ in earlier.values()])

    def chosen(trial: PlannedTrial) -> PlannedTrial:
        key, warmup = earlier.get(trial.key, (trial.key, trial.warmup_key))
        if key in results or (key in accepted.stopped and trial.key not in results):
            trial = replace(trial, key=key, warmup_key=warmup)
        return replace(trial, result=results.get(trial.key))

    return [chosen(trial) for trial in trials], damage


def _inputs(digest: str | None, facts: DataFacts | None, custom_files: CustomFiles) -> Inputs | None:
    return None if digest is None else Inputs(data_digest=digest, data_facts=facts, custom_files=custom_files)


def _prefix_without_data(config: TrialConfig) -> str:
    """Groups trials by warm-up while the digest of the data is not known."""
    return warmup_key(config, "?")
