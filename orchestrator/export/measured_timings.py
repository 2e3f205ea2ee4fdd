"""Measures the timing table that a sweep needs: of its network, at sparsities or with fewer channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.errors import UserError
from orchestrator.planning.known_data import known_data
from orchestrator.spec.grid import representative_trials
from orchestrator.spec.schema import SweepSpec
from orchestrator.storage.factory import open_storage
from trainables.custom.references import without_method
from trainables.data import datasets
from trainables.errors import ConfigError, DataError


def measure_timings(
    spec: SweepSpec, *, batch: int, threads: int, device: str, on_layer: Callable[[str], None] = lambda name: None
) -> dict[str, Any]:
    """The content of the table, of what the trials of the sweep need; sparsities if none has a target of latency.

    Args:
        on_layer: called with the name of each layer before it is measured.

    Raises:
        UserError: the sweep has several networks, its data cannot be read, or the network cannot be measured.
    """
    from trainables.export.layer_timing import measure_network

    trials = representative_trials(spec)
    networks = dict.fromkeys((trial.model, trial.width) for trial in trials)
    if len(networks) > 1:
        names = ", ".join(f"{name} of width {width}" for name, width in networks)
        raise UserError(
            f"a timing table is of one network, got {names}", "choose one with --set model=NAME", code="networks-several"
        )
    (name, width), timed = next(iter(networks)), [trial for trial in trials if trial.uses_timings]
    source = spec.source()
    try:
        custom_files = spec.custom_files().with_digests([without_method(trials[0])])
        datasets.download_if_missing(source)
        _, facts = known_data(open_storage(spec.storage, create=True), source, custom_files, hash_data=True)
        assert facts is not None
        custom_files.import_modules(without_method(trials[0]))
        return measure_network(
            name,
            width,
            facts.image_shape,
            facts.num_classes,
            sparsities=not all(trial.prunes_channels for trial in timed) or not timed,
            channels=any(trial.prunes_channels for trial in timed),
            batch=batch,
            threads=threads,
            device=device,
            on_layer=on_layer,
        )
    except (ConfigError, DataError) as error:
        raise UserError(error.message, error.hint, code="network-untimed") from error
