"""The runtime of a trial: memory formats, precision, fingerprints, compilation and malloc."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tests.support.trials import DIGITS, in_float64, tiny_config
from trainables.config.spiking import SpikingConfig
from trainables.config.trial import TrialConfig
from trainables.data.batches import scoring_batches
from trainables.data.splits import Data, load_data
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.models.spiking import with_spikes
from trainables.pruning.masks import Masks, full_masks, num_kept
from trainables.pruning.rounds import prune_round
from trainables.pruning.sparse_trainers import FixedMasks
from trainables.runtime import device
from trainables.runtime.device import Runtime, tune_malloc
from trainables.runtime.group import Group, _Joined
from trainables.training.loop import train_epoch
from trainables.training.optimizer import make_optimizer, momentum_of
from trainables.trial.checkpoint import TrialState, from_bytes, to_bytes

CHANNELS_LAST, CONTIGUOUS = Runtime(channels_last=True), Runtime(channels_last=False)
CONFIG = tiny_config(model="resnet20", prune_iterations=2)


def digits() -> Data:
    return load_data(CONFIG.dataset, DIGITS, "cpu")


def network(runtime: Runtime, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = build_model(CONFIG.model, (1, 8, 8), 10)
    initialize(model, seed=3)
    return runtime.to_device(model.to(dtype))


def epoch(state: TrialState, data: Data, runtime: Runtime, number: int, config: TrialConfig = CONFIG) -> dict[str, float]:
    return train_epoch(
        state.model,
        state.optimizer,
        FixedMasks(state.model, state.masks),
        data,
        training=config.training,
        lr=config.training.lr,
        seed=config.seed,
        epoch=number,
        runtime=runtime,
    )


def pruned(runtime: Runtime, data: Data, dtype: torch.dtype = torch.float32) -> TrialState:
    """A network after both rounds, ready for sparse training."""
    model = network(runtime, dtype)
    weights = prunable_weights(model)
    masks: Masks = full_masks(weights)
    for round_ in (1, 2):
        masks, *_ = prune_round(model, weights, masks, data, CONFIG, round_, runtime)
    return TrialState(model=model, optimizer=make_optimizer(model, CONFIG.training), masks=masks, phase="train")


def assert_in_the_order_of(runtime: Runtime, model: nn.Module) -> None:
    weight = model.get_parameter("blocks.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) == runtime.channels_last
    assert weight.is_contiguous() != runtime.channels_last


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_equal_in_both_memory_formats(training: bool) -> None:
    (images, _), *_ = scoring_batches(digits(), 40, 1, seed=0, round_=1)
    logits = []
    for runtime in (CHANNELS_LAST, CONTIGUOUS):
        model = network(runtime).train(training)
        assert_in_the_order_of(runtime, model)
        with torch.no_grad():
            logits.append(model(runtime.to_memory_format(images)))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    assert logits[0].std() > 0.1


def test_images_have_the_memory_format_of_the_network() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert CONTIGUOUS.to_memory_format(images) is images
    formatted = CHANNELS_LAST.to_memory_format(images)
    assert formatted.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(formatted, images)


def test_rounds_and_epochs_are_equal_in_both_memory_formats() -> None:
    """In float64, where no score lies so near a threshold that the order of additions could turn a mask."""
    data = in_float64(digits())
    states = [pruned(runtime, data, torch.float64) for runtime in (CHANNELS_LAST, CONTIGUOUS)]
    assert num_kept(states[0].masks) == 27_061  # 0.1 of 270,608
    assert list(states[0].masks) == list(states[1].masks)
    assert all(torch.equal(mask, states[1].masks[name]) for name, mask in states[0].masks.items())

    losses = [epoch(state, data, runtime, 0) for state, runtime in zip(states, (CHANNELS_LAST, CONTIGUOUS), strict=True)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    others = dict(states[1].model.named_parameters())
    for name, parameter in states[0].model.named_parameters():
        torch.testing.assert_close(parameter, others[name], rtol=1e-7, atol=1e-9, msg=name)
        assert name not in states[0].masks or not parameter[~states[0].masks[name]].any()
    assert_in_the_order_of(CHANNELS_LAST, states[0].model)


def everything(state: TrialState) -> dict[str, Tensor]:
    momentum = momentum_of(state.optimizer, state.model)
    return copy.deepcopy(dict(state.model.state_dict()) | {f"momentum of {name}": value for name, value in momentum.items()})


@pytest.mark.parametrize("runtime", [CHANNELS_LAST, CONTIGUOUS], ids=["channels last", "contiguous"])
def test_checkpoint_continues_in_either_memory_format(runtime: Runtime) -> None:
    data, config = digits(), replace(CONFIG, training=replace(CONFIG.training, weight_decay=1e-2, nesterov=True))
    straight = pruned(runtime, data)
    straight.optimizer = make_optimizer(straight.model, config.training)
    epoch(straight, data, runtime, 0, config)
    resumed = from_bytes(
        to_bytes(straight, "key"), runtime.to_device(build_model(config.model, (1, 8, 8), 10)), config.training, "key"
    )
    assert_in_the_order_of(runtime, resumed.model)
    for number in (1, 2):
        assert epoch(resumed, data, runtime, number, config) == epoch(straight, data, runtime, number, config)
    continued, expected = everything(resumed), everything(straight)
    assert list(continued) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in continued.items())


# What a trial is promised by its settings


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_for_trial_resolves_the_precision(precision: Literal["fp32", "bf16"]) -> None:
    runtime = Runtime(threads=3, deterministic=False, precision=precision, compile=True)
    assert runtime.for_trial("auto") == runtime
    for written in ("fp32", "bf16"):
        trial = runtime.for_trial(written)
        assert trial.precision == written
        assert replace(trial, precision=precision) == runtime  # nothing else


@pytest.mark.parametrize(
    "changed",
    [
        Runtime(compile=True),
        Runtime(channels_last=False),
        Runtime(threads=2),
        Runtime(precision="bf16"),
        Runtime(deterministic=False),
    ],
    ids=["compile", "channels_last", "threads", "precision", "deterministic"],
)
def test_fingerprint_covers_every_setting_that_changes_results(changed: Runtime) -> None:
    assert Runtime().fingerprint() == Runtime().fingerprint()
    assert Runtime().fingerprint_id() == Runtime().fingerprint_id()
    assert changed.fingerprint() != Runtime().fingerprint()
    assert changed.fingerprint_id() != Runtime().fingerprint_id()


def test_compiled_without_compilation_is_the_network() -> None:
    model = network(Runtime())
    assert Runtime().compiled(model) is model


@pytest.mark.parametrize(
    ("spiking", "mode"),
    [(SpikingConfig(), "reduce-overhead"), (SpikingConfig(rule="sltt"), "default")],
    ids=["plain", "spiking"],
)
def test_networks_that_keep_their_state_are_compiled_without_graphs(
    spiking: SpikingConfig, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of the compiler, since graphs need a GPU: a replay would overwrite the voltages of the step before."""
    asked: list[str] = []

    def note(model: nn.Module, mode: str) -> nn.Module:
        asked.append(mode)
        return model

    monkeypatch.setattr(torch, "compile", note)
    model = build_model("convnet", (1, 8, 8), 10)
    initialize(model, seed=0)
    model = with_spikes(model, spiking)
    state = TrialState(model=model, optimizer=make_optimizer(model, CONFIG.training), masks={})
    epoch(state, digits(), Runtime(compile=True), 0)
    assert asked == [mode]


class FakeLibrary:
    """A C library whose mallopt notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return 1


def test_tune_malloc_sets_both_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary()
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    tune_malloc.__wrapped__()
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    assert {parameter for parameter, _ in library.calls} == {trim, mmap}
    assert all(64 << 20 <= value < 1 << 31 for _, value in library.calls)  # activations are smaller; mallopt takes an int


@pytest.mark.parametrize("library", [None, object()], ids=["no glibc", "no mallopt"])
def test_tune_malloc_ignores_other_c_libraries(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> object:
        if library is None:
            raise OSError(f"{name}: cannot open shared object file")
        return library

    monkeypatch.setattr("ctypes.CDLL", load)
    tune_malloc.__wrapped__()


def test_tune_malloc_runs_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str) -> FakeLibrary:
        loaded.append(name)
        return FakeLibrary()

    monkeypatch.setattr("ctypes.CDLL", load)
    tune_malloc.cache_clear()
    try:
        Runtime().activate()
        Runtime().activate()
    finally:
        tune_malloc.cache_clear()
    assert loaded == ["libc.so.6"]


def test_fp32_is_whole_on_every_device() -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True  # the first is PyTorch's default
    Runtime().activate()
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
    assert "tf32" not in Runtime().fingerprint()  # of a CPU, as before


def test_fingerprint_of_several_gpus_says_how_they_are_spread_where_that_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of two numbers are the same in any order."""
    monkeypatch.setattr(device, "processor", lambda device: "GPU")
    for workers, deterministic, is_said in ((2, True, False), (4, True, True), (4, False, False)):
        spread = Group(workers=workers, processors=("GPU",), layout="2+2")
        monkeypatch.setattr(_Joined, "group", spread)
        found = Runtime(device="cuda", workers=workers, deterministic=deterministic).fingerprint()
        assert found.get("layout") == ("2+2" if is_said else None)
    assert "layout" not in Runtime(workers=4).fingerprint()  # gloo adds in the order of the ranks
