"""Pauses a sweep when the same error comes in two trials that have nothing in common: the others would fail too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.execution.driver import Driver
from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.scheduling.repeated_errors import RepeatedErrors
from orchestrator.spec.ranges import Range
from orchestrator.spec.schema import SweepSpec
from orchestrator.terminal.pause import pause_lines
from trainables.config.keys import flatten
from trainables.config.lookup import option_block

CONTINUE = "continue"  # value of `on_error`


@dataclass(kw_only=True)
class Pauser:
    """Looks at the failures of a running sweep."""

    driver: Driver
    spec: SweepSpec
    errors: RepeatedErrors = field(init=False)

    def __post_init__(self) -> None:
        self.errors = RepeatedErrors(values_of=lambda key: axis_values(self.spec, self.driver.state.trials[key].config))

    def on_failure(self, trial: QueuedStage) -> None:
        """Takes a trial that has failed; pauses the sweep if the error repeats and something is left to begin."""
        driver, queue = self.driver, self.driver.queue
        repeated = self.errors.add(trial)
        is_over = driver.state.settled and not queue.has_waiting
        if repeated is None or queue.closed or is_over or self.spec.on_error == CONTINUE:
            return
        queue.paused = True
        driver.state.pause = asdict(repeated) | {"file": self._file(repeated.place)}
        for line in pause_lines(driver.state):
            driver.announce(line)
        driver.events.write("sweep_paused", **driver.state.pause)

    def _file(self, place: str) -> str:
        """The file of a place, if it is one whose change has to be accepted; else empty."""
        file = place.rpartition(":")[0]
        configs = [flatten(trial.config) for trial in self.driver.state.trials.values()]
        names = {str(config.get(key)) for config in configs for key in ("dataset.name", "model", "method", "training.loss")}
        modules = {name.removeprefix("module:").rpartition(".")[0].replace(".", "/") for name in names if ":" in name}
        return file if file.removesuffix(".py") in modules else ""


def axis_values(spec: SweepSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    """Axis of the sweep with more than one value -> the trial's value.

    Args:
        config: complete, as in the state of a sweep.
    """
    values = flatten(dict(config))
    keys = [key for key, axis in spec.search.items() if isinstance(axis, Range) or len(axis) > 1]
    keys += ["seed"] if spec.seeds and "seed" not in keys else []
    axes = {key: values.get(key) for key in keys}
    if len(spec.method) > 1:  # of a method of the user's also its options
        axes["method"] = (config["method"], config.get(option_block(config["method"])))
    return axes
