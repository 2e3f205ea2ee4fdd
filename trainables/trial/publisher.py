"""Publishes the files of a trial in an order in which no point is lost or duplicated.

Points are published before the checkpoint that contains them, the model before the result; a trial is finished when its result
exists.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from torch import nn

from trainables.analysis.model_stats import model_stats
from trainables.config.keys import NUMERICS, canonical
from trainables.config.trial import TrialConfig
from trainables.custom.imports import source_of
from trainables.custom.references import is_custom
from trainables.data.splits import Data
from trainables.errors import StopRequestedError, kind_of
from trainables.export.model_card import ModelCard
from trainables.export.sparse_model import encode, encode_smaller
from trainables.models.spiking import without_spikes
from trainables.records.failure_place import place_of, traceback_of
from trainables.records.failure_record import publish_failure
from trainables.records.file_names import CHECKPOINT, CONFIG, ERROR, METRICS, MODEL, NETWORK, RESULT, STOPPED
from trainables.records.metrics import DamagedRecordError, MetricLog, points_from_lines
from trainables.records.protocols import TrialFiles
from trainables.records.result_record import encode_result
from trainables.records.self_digest import is_whole, with_digest
from trainables.runtime.group import group_of
from trainables.runtime.json_text import parse_json
from trainables.trial.checkpoint import TrialState, to_bytes
from trainables.trial.context import TrialContext
from trainables.trial.result import cost_metrics, size_metrics, weight_summary


class TrialPublisher:
    """Publishes the files of one attempt at a trial, whose configuration in them is the one that was asked for."""

    def __init__(self, config: TrialConfig, context: TrialContext) -> None:
        self.config = config
        self.context = context
        self.files = context.files
        self.started_ms = int(time.time() * 1000)
        self.custom_digests = context.custom_files.digests_of(config)
        versions = context.custom_files.versions_of(config)
        self.provenance = context.provenance | ({"own_digests": self.custom_digests} if self.custom_digests else {})
        self.provenance |= {"own_versions": versions} if versions else {}
        self.last_checkpoint = self.last_metrics = time.monotonic()
        self.group = group_of(context.runtime)

    def config_file(self) -> None:
        """Writes config.json unless it exists."""
        record = self.provenance | {"config": canonical(self.config), "numerics": NUMERICS}
        if not self._is_config(self.files.read(CONFIG)):
            self.files.publish(CONFIG, json.dumps(with_digest(record), indent=1, sort_keys=True).encode())

    def _is_config(self, content: bytes | None) -> bool:
        """Whether the content is a whole config.json of this trial."""
        try:
            record = parse_json(content or b"")
        except ValueError:
            return False
        return isinstance(record, dict) and is_whole(record) and record.get("config") == canonical(self.config)

    def keep_published_points(self, state: TrialState) -> None:
        """Gives the state the published points with their times, since others may have read them."""
        published = self.files.read(METRICS)
        if published is not None:
            with suppress(DamagedRecordError):  # the points are then computed and written again
                state.metrics.merge(points_from_lines(published))

    def at_boundary(self, state: TrialState, phase_ends: bool = False) -> None:
        """Publishes what is due: points first, then the checkpoint that contains them.

        A warm-up's checkpoint is its snapshot (warmup.py), so none is written for it here.

        Raises:
            StopRequestedError: the trial should stop; its state is published.
        """
        is_rung = state.phase == "train" and state.position in self.context.rungs
        if is_rung:
            self._report_rung(state)
        now = time.monotonic()
        stop = self._stop_requested(at_once=is_rung)
        checkpoint = phase_ends or stop or now - self.last_checkpoint >= self.context.checkpoint_seconds
        if checkpoint or now - self.last_metrics >= self.context.metrics_seconds:
            self.files.publish(METRICS, self._lines(state))
            self.last_metrics = now
            if checkpoint:
                self.last_checkpoint = now
                if state.phase != "warmup":
                    self.files.publish(CHECKPOINT, to_bytes(state, self.files.key))
            self.context.on_progress(state)
        if stop:
            if state.phase == "warmup":
                snapshots = self.context.snapshots
                snapshots.publish(state.position, to_bytes(state, snapshots.key))
            raise StopRequestedError(f"stopped in phase {state.phase} after {state.position}; continues from there")

    def require_no_stop(self) -> None:
        """Raises StopRequestedError if the trial should stop where there is nothing to keep."""
        if self._stop_requested():
            raise StopRequestedError("stopped while it chose its iterations; chooses them again")

    def at_resume(self, state: TrialState) -> None:
        """Reports rungs that an interrupted attempt may have passed without a decision.

        Raises:
            StopRequestedError: the trial was to be stopped there.
        """
        if state.phase == "train" and any(rung <= state.position for rung in self.context.rungs):
            self._report_rung(state)
            if self._stop_requested(at_once=True):
                raise StopRequestedError(f"stopped in phase {state.phase} after {state.position}; continues from there")

    def _stop_requested(self, *, at_once: bool = False) -> bool:
        """Whether the trial should stop; several workers all stop at the same boundary."""
        return self.group.of_first(lambda: self.files.stop_requested(at_once=at_once))

    def _report_rung(self, state: TrialState) -> None:
        """Reports the points up to a rung; the driver has decided about the trial when the report returns."""
        self.files.publish(METRICS, self._lines(state))
        self.last_metrics = time.monotonic()
        self.context.on_rung(state)

    def _lines(self, state: TrialState) -> bytes:
        """The content of metrics.jsonl.

        During the warm-up the trial's published points are merged into a copy, since they must not get into the snapshots that
        other trials read.
        """
        if state.phase != "warmup":
            return state.metrics.to_lines()
        merged = MetricLog(state.metrics.points())
        published = self.files.read(METRICS)
        if published is not None:
            with suppress(DamagedRecordError):
                merged.merge(points_from_lines(published))
        return merged.to_lines()

    def result(self, state: TrialState, network: nn.Module, data: Data, chosen: TrialConfig) -> dict[str, Any]:
        """Publishes the sparse model, the last points and the result, removes the checkpoint, and returns the result.

        Args:
            network: to publish; smaller than the state's where channels were removed.
            chosen: the configuration with what the trial chose itself.
        """
        config = self.config
        stats = model_stats(state.model, state.masks, data.image_shape, without_spikes(state.model))
        card = ModelCard(
            model=config.model,
            image_shape=data.image_shape,
            num_classes=data.num_classes,
            normalization=data.normalization,
            config=canonical(config),
            source_sha256=self.custom_digests.get("model"),
        )
        if network is state.model:
            model_file, model_sha256 = encode(network, state.masks, card, config.options.nm_pattern())
        else:
            model_file, model_sha256 = encode_smaller(network, state.masks, card)
        metrics = cost_metrics(chosen, state.seconds) | size_metrics(stats) | {"model/bytes": float(len(model_file))}
        state.metrics.record(chosen.total_epochs, metrics)

        self.files.publish(MODEL, model_file)
        if is_custom(config.model):
            self.files.publish(NETWORK, source_of(config.model))
        metrics_file = state.metrics.to_lines()
        self.files.publish(METRICS, metrics_file)
        result = self.provenance | {
            "config": canonical(config),
            "numerics": NUMERICS,
            "attempt": self.files.attempt,
            "model_sha256": model_sha256,
            "model_bytes": len(model_file),
            "image_shape": list(data.image_shape),
            "num_classes": data.num_classes,
            **weight_summary(config, state, stats),
            "metrics": state.metrics.last_values(),
            "metric_points": len(state.metrics.points()),
            "fingerprints": state.fingerprints,
            "started_ms": min([point.time_ms for point in state.metrics.points()] + [self.started_ms]),
            "finished_ms": int(time.time() * 1000),
        }
        if state.choices:
            result["choices"] = {key: choice.to_json() for key, choice in state.choices.items()}
        result, content = encode_result(self.files.key, result, metrics_file, model_file)
        self.files.publish(RESULT, content)
        self.files.remove(CHECKPOINT)
        self.files.remove(ERROR)
        self.files.remove(STOPPED)
        self.context.on_progress(state)
        return result


def publish_error(files: TrialFiles, error: Exception) -> None:
    """Writes error.json: kind, message, traceback and place of the error."""
    publish_failure(files, kind_of(error), str(error) or type(error).__name__, traceback_of(error), place_of(error))
