"""The state of a sweep whose trials have finished with given accuracies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.spec.grid import expand
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.trial_names import trial_names
from orchestrator.state.sweep_state import SweepState, TrialStatus
from tests.support.sweep_files import load_text
from trainables.config.keys import complete, trial_key
from trainables.config.trial import TrialConfig

Metrics = Callable[[TrialConfig], Mapping[str, float] | None]


def finished_sweep(text: str, metrics: Metrics) -> tuple[SweepSpec, SweepState]:
    """The sweep of a file's text.

    Args:
        metrics: of a trial; None if it has not finished.
    """
    spec = load_text(text)
    state, configs = SweepState(sweep=spec.name), expand(spec)
    for config, name in zip(configs, trial_names(configs), strict=True):
        key, values = trial_key(config, "none"), metrics(config)
        state.trials[key] = TrialStatus(
            key=key,
            name=name,
            state="waiting" if values is None else "finished",
            config=complete(config),
            metrics=dict(values or {}),
        )
    return spec, state
