"""Whole trials on streamed data sets end with the same model, however often they were stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import stop_files
from tests.support.dataset_folders import imagenet, imagenet_source, striped, tiny_imagenet, tiny_source
from tests.support.trials import SWEEP, metric_points, new_storage, run, tiny_config, tiny_training
from trainables.config.keys import canonical
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data import splits
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.data.staging import StagedDataset
from trainables.errors import StopRequestedError
from trainables.runtime.device import Runtime
from trainables.trial.checkpoint import TrialState
from trainables.worker.probe import STEPS, Probe


def streamed_config(**changes: Any) -> TrialConfig:
    dataset = DatasetConfig(name="imagenet", image_size=32, validation=0.25)
    return tiny_config(dataset=dataset, training=tiny_training(epochs=2, batch_size=8), **changes)


def tiny_imagenet_config(**changes: Any) -> TrialConfig:
    dataset = DatasetConfig(name="tiny_imagenet", validation=0.25)
    return replace(streamed_config(**changes), dataset=dataset)


def stopped_and_resumed(config: TrialConfig, storage: Storage, source: DatasetSource, phase: str) -> dict[str, Any]:
    """The sweep is asked to stop at the first boundary in a phase; the trial does at the next one."""
    (stop, _) = stop_files(SWEEP, "")

    def ask(state: TrialState) -> None:
        if state.phase == phase:
            storage.write(stop, b"")

    with pytest.raises(StopRequestedError, match="continues from there"):
        run(config, storage, 1, source=source, on_progress=ask)
    storage.remove(stop)
    return run(config, storage, 2, source=source)


@pytest.mark.parametrize(("model", "method"), [("convnet", "drive"), pytest.param("resnet20", "grasp", marks=pytest.mark.long)])
@pytest.mark.process
def test_streamed_trial_resumes_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, method: str
) -> None:
    config = streamed_config(model=model, method=method)
    source = imagenet_source(striped(tmp_path / "images"))
    expected = run(config, new_storage(tmp_path / "first"), source=source)
    points = metric_points(config, new_storage(tmp_path / "first"))
    assert expected["image_shape"] == [3, 32, 32]
    assert expected["num_classes"] == 3

    for phase in ("warmup", "prune", "train"):
        storage = new_storage(tmp_path / phase)
        assert stopped_and_resumed(config, storage, source, phase)["model_sha256"] == expected["model_sha256"]
        assert metric_points(config, storage) == points

    monkeypatch.setattr(splits, "decoding_workers", lambda device, threads: 0)
    load_data.cache_clear()
    alone = run(config, new_storage(tmp_path / "alone"), source=source)
    assert alone["model_sha256"] == expected["model_sha256"]


def test_trial_on_tiny_imagenet_resumes_to_the_same_model(tmp_path: Path) -> None:
    config = tiny_imagenet_config()
    source = tiny_source(tiny_imagenet(tmp_path / "images"))
    expected = run(config, new_storage(tmp_path / "first"), source=source)
    assert expected["image_shape"] == [3, 64, 64]
    load_data.cache_clear()
    assert run(config, new_storage(tmp_path / "second"), source=source)["model_sha256"] == expected["model_sha256"]
    resumed = stopped_and_resumed(config, new_storage(tmp_path / "stopped"), source, "train")
    assert resumed["model_sha256"] == expected["model_sha256"]
    assert metric_points(config, new_storage(tmp_path / "stopped")) == metric_points(config, new_storage(tmp_path / "first"))


@pytest.mark.process
def test_probe_measures_a_few_streamed_batches(tmp_path: Path) -> None:
    config = replace(streamed_config(), training=tiny_training(batch_size=4))
    probe = Probe(canonical(config), StagedDataset(source=imagenet_source(imagenet(tmp_path))), Runtime())
    assert len(probe.data.train) == STEPS * 4
    assert probe.measure_peak_memory() > 1 << 26
    assert probe._train() == STEPS * 4
