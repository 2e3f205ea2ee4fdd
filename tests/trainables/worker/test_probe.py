"""Hardware probes before a sweep: speed and memory of a trial, precision, and whether compilation works."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import ROOT
from tests.support.trials import DIGITS, tiny_config, tiny_training
from trainables.config.keys import canonical
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data.splits import PAD
from trainables.data.staging import StagedDataset
from trainables.runtime.device import Runtime, resolve_precision
from trainables.worker.probe import STEPS, Probe, probe_hardware

WITHOUT_COMPILER = {"PATH": "", "CXX": "/nonexistent"}


def probe_of(config: TrialConfig, runtime: Runtime | None = None) -> Probe:
    return Probe(canonical(config), StagedDataset(source=DIGITS), runtime or Runtime())


def test_probe_measures_memory_and_speed() -> None:
    probe = probe_of(tiny_config(dataset=DatasetConfig(name="digits"), training=tiny_training(lr=1e30)))
    assert probe.measure_peak_memory() > 1 << 26  # 64 MiB: PyTorch alone takes more
    assert probe.images_per_second(0.1) > 0
    assert probe.gpu_bytes() == 0
    tensors = dict(probe.model.state_dict())
    assert [name for name, tensor in tensors.items() if not tensor.isfinite().all()] == []
    assert tensors["norm1.num_batches_tracked"] >= 2 * STEPS  # it did train


@pytest.mark.parametrize(("limit", "batches"), [(200, STEPS), (50, 2)])  # 160 and 40 images to train on
def test_probe_uses_a_few_full_batches(limit: int, batches: int) -> None:
    probe = probe_of(tiny_config(dataset=DatasetConfig(name="digits", limit=limit, validation=0.2)))
    before = int(dict(probe.model.named_buffers())["norm1.num_batches_tracked"])
    assert probe._train() == batches * 20
    assert int(dict(probe.model.named_buffers())["norm1.num_batches_tracked"]) - before == batches


def test_probe_holds_the_padded_images_of_all_while_it_trains() -> None:
    """As an epoch does, of which it trains a few batches only."""

    class Watched(Probe):
        def _train(self) -> int:
            held.extend(tuple(each.shape) for each in gc.get_objects() if type(each) is torch.Tensor)
            return super()._train()

    held: list[tuple[int, ...]] = []
    dataset = DatasetConfig(name="digits", limit=500, validation=0.2, augment="crop")
    Watched(canonical(tiny_config(dataset=dataset)), StagedDataset(source=DIGITS), Runtime()).measure_peak_memory()
    assert (400, 1, 8 + 2 * PAD, 8 + 2 * PAD) in held


def test_probe_uses_precision_and_threads_of_the_trial() -> None:
    try:
        probe = probe_of(tiny_config(precision="bf16"), Runtime(threads=2))
        assert (probe.runtime.precision, torch.get_num_threads()) == ("bf16", 2)
        assert probe_of(tiny_config(precision="auto"), Runtime(precision="bf16")).runtime.precision == "bf16"
    finally:
        torch.set_num_threads(1)


def test_probe_hardware_compiles_only_on_request() -> None:
    assert probe_hardware("cpu", wants_compile=False) == {"precision": resolve_precision("auto", "cpu"), "compile_problem": ""}


def examined_elsewhere(tmp_path: Path, **environment: str) -> dict[str, str]:
    """The answer of a fresh process that has compiled nothing yet; it fails if the process does."""
    script = (
        "import json; from trainables.worker.probe import probe_hardware; "
        "print(json.dumps(probe_hardware('cpu', wants_compile=True)))"
    )
    everything = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")} | environment
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=everything, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.long
def test_missing_compiler_is_reported_in_one_line(tmp_path: Path) -> None:
    problem = examined_elsewhere(tmp_path, **WITHOUT_COMPILER)["compile_problem"]
    assert "compiler" in problem.lower()
    assert len(problem.splitlines()) == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
@pytest.mark.long
def test_working_compiler_has_no_problem(tmp_path: Path) -> None:
    assert examined_elsewhere(tmp_path)["compile_problem"] == ""
    assert list((tmp_path / "inductor").rglob("*.so"))  # something was compiled
