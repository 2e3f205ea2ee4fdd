"""Everything that is known of a sweep's results at one time: what tables, figures and pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.recommendation.recommendation import Recommendation, recommendations
from orchestrator.reporting.aggregate import ConfigSummary, config_summaries
from orchestrator.reporting.latencies import with_latencies
from orchestrator.search.overview import SearchOverview, recorded_overview
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.earlier_files import Files, kept_trials
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.state.trial_results import recorded_state
from orchestrator.storage.layout import trial_file
from trainables.records.file_names import METRICS
from trainables.records.metrics import DamagedRecordError, Point, points_from_lines


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """The results of one sweep.

    Attributes:
        spec: None if the sweep's record of it is gone.
        state: with the metrics of the records; trials with a damaged record do not count as finished.
        records: trial key -> its result.json.
        damage: trial key -> the damaged file and what is wrong with it.
        overview: of a search.
        kept: trials that were made with earlier files of the user's.
        settings: the configurations with a finished trial; the recommended ones are marked as best.
    """

    folder: SweepFolder
    spec: SweepSpec | None
    state: SweepState
    records: Mapping[str, Mapping[str, Any]]
    damage: Mapping[str, str]
    overview: SearchOverview | None
    recommendations: tuple[Recommendation, ...]
    settings: tuple[ConfigSummary, ...]
    kept: Mapping[str, Files] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    def curves(self, keys: Iterable[str]) -> dict[str, list[Point]]:
        """Trial key -> its metric points; without trials whose file is gone or damaged."""
        wanted = list(keys)
        contents = self.folder.storage.read_all([trial_file(key, METRICS) for key in wanted])
        curves: dict[str, list[Point]] = {}
        for key, content in zip(wanted, contents, strict=True):
            if content is not None:
                with suppress(DamagedRecordError):
                    curves[key] = points_from_lines(content)
        return curves


def sweep_results(folder: SweepFolder, state: SweepState) -> SweepResults:
    """What has finished so far."""
    state, records, damage = recorded_state(folder.storage, state)
    state = with_latencies(folder.storage, state)
    overview = recorded_overview(folder, with_importances=True) if state.search else None
    spec, kept = _spec(folder), kept_trials(folder)
    advice = _recommended(spec, state, overview, kept)
    keys = frozenset(key for one in advice for key in one.keys)
    settings = config_summaries(state)
    if advice or state.search:
        settings = [replace(one, best=not keys.isdisjoint(one.keys)) for one in settings]
    return SweepResults(
        folder=folder,
        spec=spec,
        state=state,
        records=records,
        damage=damage,
        overview=overview,
        recommendations=tuple(advice),
        settings=tuple(settings),
        kept=kept,
    )


def recommended(folder: SweepFolder, state: SweepState, overview: SearchOverview | None) -> list[Recommendation]:
    """The recommendation for each group by what has finished so far; none without a single objective, or a sweep file.

    Args:
        overview: of a search, whose groups have chosen themselves.
    """
    return _recommended(_spec(folder), state, overview, kept_trials(folder))


def _recommended(
    spec: SweepSpec | None, state: SweepState, overview: SearchOverview | None, kept: Mapping[str, Files]
) -> list[Recommendation]:
    if spec is None:
        return []
    groups = overview.groups if overview else ()
    return recommendations(spec, state, {group.name: frozenset(group.best.keys) for group in groups if group.best}, kept)


def _spec(folder: SweepFolder) -> SweepSpec | None:
    record = folder.storage.read_json(folder.file("spec.json"))
    return None if record is None else spec_from_resolved(record)
