"""Networks before a sweep: each fault is reported with its layers and a fix, and sound networks pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from orchestrator.errors import UserError
from orchestrator.preflight.networks import require_no_errors
from tests.support.custom_modules import run_custom, write_modules
from tests.support.examined_networks import CLASSES, MODULE, SHAPE, Make, Small, errors, examined, sound
from tests.support.trials import new_storage, tiny_config
from trainables.config.methods import ConsensusConfig, HapConfig, PolarizationConfig
from trainables.config.trial import PrunableConfig, TrialConfig
from trainables.errors import ConfigError
from trainables.preflight.network_case import NetworkReport, adjusted_runtime, case_id, cases_of
from trainables.preflight.network_checks import evaluation_sizes, examine_network
from trainables.runtime.device import Runtime

COUNTER = iter(range(1000))
EVERY = ["drive", "snip", "grasp", "synflow", "magnitude", "random", "imp", "gmp", "granet", "srste", "dense"]


def test_sound_network_passes_for_every_method() -> None:
    report = examined(sound, methods=EVERY)
    assert (report.findings, report.adjusted) == ((), {})


@pytest.mark.parametrize("name", ["convnet", "lenet300", "resnet20"])
def test_built_in_networks_pass(name: str) -> None:
    (case,) = cases_of([tiny_config(model=name)])
    assert examine_network(case, SHAPE, CLASSES, Runtime(), [10]).findings == ()


@pytest.mark.parametrize(
    ("method", "options", "problem"),
    [
        ("polarization", PolarizationConfig(), "method: polarization must have norm layers with scales"),
        ("hap", HapConfig(implant=0.1), "hap.implant: the network must have channels that k x k convolutions alone make"),
        ("consensus", ConsensusConfig(), ""),
    ],
)
def test_methods_of_channels_are_refused_where_a_network_lacks_what_they_need(method: Any, options: Any, problem: str) -> None:
    (case,) = cases_of([tiny_config(model="lenet300", method=method, options=options)])
    found = examine_network(case, SHAPE, CLASSES, Runtime(), [10]).errors
    assert [problem in str(one) for one in found] == [True] * bool(problem)


class Tuple(Small):
    def forward(self, x: Tensor) -> Any:
        scores = super().forward(x)
        return (scores, scores) if self.training else scores


class Frozen(Small):
    def __init__(self) -> None:
        super().__init__()
        self.conv.requires_grad_(False)


class NeverCalled(Small):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(3, 3)


class Detached(Small):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x).detach()


class Reentrant(Small):
    def features(self, x: Tensor) -> Tensor:
        return checkpoint(super().features, x.requires_grad_(), use_reentrant=True)


class Standardised(Small):
    def features(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return torch.relu(functional.conv2d(x, weight, padding=1)).flatten(1)


class Product(Small):
    def forward(self, x: Tensor) -> Any:
        return self.features(x) @ (self.head.weight @ self.hidden.weight).T


class NoisyAnswer(Small):
    def features(self, x: Tensor) -> Tensor:
        return functional.dropout(super().features(x), 0.5)


class Counting(Small):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return super().forward(x)


class NumpyInForward(Small):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x) * (np.random.rand() if self.training else 1.0)


class LogSoftmaxAtEnd(Small):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).log_softmax(1)


class NoSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * grads[0]


class Once(Small):
    def features(self, x: Tensor) -> Tensor:
        doubled: Tensor = NoSecondDerivative.apply(super().features(x))
        return doubled


def changed(change: Callable[[Small], Any]) -> Make:
    def make(shape: Any, classes: int) -> nn.Module:
        network = Small()
        change(network)
        return network

    return make


FAULTS: dict[str, tuple[Make, str, tuple[str, ...]]] = {
    "tuple": (Tuple, "outputs", ("training mode", "tuple")),
    "frozen": (Frozen, "gradients", ("conv", "prunable.exclude: [conv]")),
    "never called": (NeverCalled, "gradients", ("spare", "prunable.exclude: [spare]")),
    "detached": (Detached, "gradients", ("conv", "prunable.exclude: [conv]")),
    "reentrant": (Reentrant, "gradients", ("use_reentrant=False",)),
    "weight_norm": (changed(lambda net: parametrizations.weight_norm(net.hidden)), "parameters", ("hidden",)),
    "old weight_norm": (changed(lambda net: nn.utils.weight_norm(net.hidden)), "parameters", ("hidden",)),
    "spectral_norm": (changed(lambda net: parametrizations.spectral_norm(net.head)), "parameters", ("head",)),
    "prune": (changed(lambda net: prune.l1_unstructured(net.conv, "weight", 0.5)), "parameters", ("conv",)),
    "standardised": (Standardised, "sparse_weights", ("conv", "prunable.exclude: [conv]")),
    "product": (Product, "sparse_weights", ("head", "hidden")),
    "noisy": (NoisyAnswer, "outputs", ("same twice in eval mode", "training=self.training")),
    "counting": (Counting, "outputs", ("calls",)),
    "numpy": (NumpyInForward, "arithmetic", ("not with numpy",)),
    "DataParallel": (lambda shape, classes: nn.DataParallel(Small()), "network", ("DataParallel",)),
    "script": (lambda shape, classes: torch.jit.trace(Small().eval(), torch.zeros(2, *SHAPE)), "network", ("ScriptModule",)),
    "compiled": (lambda shape, classes: Small().half(), "network", ("images of shape",)),
    "double": (lambda shape, classes: Wide(), "network", ("float32", "float64")),
}


class Wide(Small):
    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.double()).float()


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_reported_with_layers_and_hint(fault: str) -> None:
    make, check, parts = FAULTS[fault]
    if isinstance(make, type):
        cls: Any = make
        make = lambda shape, classes: cls()  # noqa: E731
    findings = errors(make)
    assert check in findings, findings
    for part in parts:
        assert part in findings[check]


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("cls", [Frozen, NeverCalled])
def test_layers_without_gradient_are_rejected_for_every_method(cls: type[nn.Module], method: str) -> None:
    assert list(errors(lambda shape, classes: cls(), methods=[method])) == ["gradients"]


@pytest.mark.parametrize(("cls", "layer"), [(Frozen, "conv"), (NeverCalled, "spare"), (Standardised, "conv")])
def test_excluded_layers_are_not_checked(cls: type[nn.Module], layer: str) -> None:
    assert errors(lambda shape, classes: cls(), prunable=PrunableConfig(exclude=(layer,))) == {}


def test_weights_through_views_scales_and_masks_stay_sparse() -> None:
    class Viewed(Small):
        def forward(self, x: Tensor) -> Any:
            hidden = torch.relu(self.features(x) @ (self.hidden.weight.t() * 0.5) + self.hidden.bias)
            return torch.einsum("bi,ki->bk", hidden, self.head.weight)

    assert errors(lambda shape, classes: Viewed()) == {}


def test_requirements_of_a_method_are_checked_for_it_alone() -> None:
    def once(shape: Any, classes: int) -> nn.Module:
        return Once()

    def log_softmax(shape: Any, classes: int) -> nn.Module:
        return LogSoftmaxAtEnd()

    assert errors(once) == errors(log_softmax) == {}
    assert list(errors(once, methods=["drive", "grasp"])) == ["grasp"]
    assert list(errors(log_softmax, methods=["drive", "synflow"])) == ["synflow"]


def test_all_findings_are_reported_at_once() -> None:
    class Many(Frozen):
        def __init__(self) -> None:
            super().__init__()
            parametrizations.weight_norm(self.head)

    report = examined(lambda shape, classes: Many())
    assert {finding.check for finding in report.errors} == {"gradients", "parameters"}
    with pytest.raises(UserError, match=r"(?s)conv.*prunable\.exclude"):
        require_no_errors([report])


def test_contiguous_format_is_used_where_needed() -> None:
    class LeNet(Small):
        def features(self, x: Tensor) -> Tensor:
            hidden = self.conv(x)
            return torch.relu(hidden.view(hidden.size(0), -1))

    class FiveDimensions(Small):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Parameter(torch.ones(1, 1, 1, 1, 1))

        def forward(self, x: Tensor) -> Any:
            return super().forward(x) * self.other.sum()

    for cls in (LeNet, FiveDimensions):
        report = examined(lambda shape, classes, cls=cls: cls())
        assert report.adjusted == {"channels_last": False}
        assert [finding.severity for finding in report.findings] == ["warning"]
        config = tiny_config(model=f"module:{MODULE}.net")
        assert not adjusted_runtime(Runtime(), config, {report.case: report.adjusted}).channels_last
        assert adjusted_runtime(Runtime(), tiny_config(), {report.case: report.adjusted}) == Runtime()


@pytest.mark.parametrize(
    ("draw", "got"),
    [
        (lambda: float(np.random.rand()), "numpy"),
        (random.random, "random"),
        (lambda: float(next(COUNTER)), "other ones"),
    ],
)
def test_weights_independent_of_the_seed_are_rejected(draw: Callable[[], float], got: str) -> None:
    def make(shape: Any, classes: int) -> nn.Module:
        network = Small()
        with torch.no_grad():
            network.head.bias.fill_(draw())
        return network

    np.random.seed(1)  # as a user's module may
    random.seed(1)
    findings = errors(make)
    assert list(findings) == ["builds"]
    assert got in findings["builds"]


def test_reused_modules_are_rejected() -> None:
    shared = Small()
    assert "new network each time" in errors(lambda shape, classes: shared)["builds"]


def test_generators_are_restored() -> None:
    np.random.seed(3)
    random.seed(3)
    torch.manual_seed(3)
    expected = np.random.rand(), random.random(), torch.rand(())
    np.random.seed(3)
    random.seed(3)
    torch.manual_seed(3)
    examined(sound)
    assert (np.random.rand(), random.random(), torch.rand(())) == expected


def test_probabilities_give_a_warning() -> None:
    class Softmax(Small):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x).softmax(1)

    (finding,) = examined(lambda shape, classes: Softmax()).findings
    assert (finding.severity, finding.hint) == ("warning", "return logits")


def test_evaluation_sizes_cover_all_batches() -> None:
    config = tiny_config()
    whole = replace(config, dataset=replace(config.dataset, limit=None, validation=0.1))
    assert evaluation_sizes(whole, 50_000, 10_000) == [500]
    assert evaluation_sizes(whole, 1438, 359) == [144, 359]
    assert evaluation_sizes(config, 1438, 359) == [10]


def test_trials_of_one_warmup_are_one_case() -> None:
    configs = [tiny_config(method=method, seed=seed) for method in ("drive", "synflow") for seed in (0, 1)]
    (case,) = cases_of(configs)
    assert [config.method for config in case.configs] == ["drive", "synflow"]
    assert case_id(tiny_config(precision="bf16")) != case.id
    report = NetworkReport(case=case.id, model="convnet", findings=(), adjusted={"precision": "fp32"}, seconds=0.1)
    assert NetworkReport.from_json(report.to_json()) == report


def test_trial_without_checks_fails_by_the_same_rule(tmp_path: Path) -> None:
    source = "import torch\nfrom torch import nn\n"
    source += "def frozen(shape, classes):\n    net = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    source += "    net[1].weight.requires_grad_(False)\n    return net\n"
    write_modules(tmp_path, frozen_nets=source)
    config: TrialConfig = tiny_config(model="module:frozen_nets.frozen", method="magnitude")
    with pytest.raises(ConfigError, match=r"prunable\.exclude: \[1\]"):
        run_custom(config, new_storage(tmp_path), tmp_path)


def test_out_of_memory_gives_a_warning() -> None:
    class Large(Small):
        def forward(self, x: Tensor) -> Any:
            if len(x) == 50:  # the sweep's batch
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return super().forward(x)

    (finding,) = examined(lambda shape, classes: Large(), training=replace(tiny_config().training, batch_size=50)).findings
    assert (finding.check, finding.severity) == ("memory", "warning")
    assert "a batch of 50 images needs more memory than cpu has left" in str(finding)


class Centred(Small):
    """Takes what the images of a batch have in common away from each."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x - x.mean(0))


class Mixed(Small):
    """Attention over the images of the batch, as where batch_first was forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.attention(x[:, 0]).unsqueeze(1))


class StandardisedInTraining(Small):
    def forward(self, x: Tensor) -> Any:
        weight = self.hidden.weight
        if self.training:
            weight = weight - weight.mean(1, keepdim=True)
        return self.head(torch.relu(functional.linear(self.features(x), weight, self.hidden.bias)))


class ChangesItself(Small):
    def forward(self, x: Tensor) -> Any:
        if self.training:
            with torch.no_grad():
                self.hidden.weight.sub_(self.hidden.weight.mean(1, keepdim=True))
        return super().forward(x)


class OnlyALayer(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))


@pytest.mark.parametrize(
    ("make", "check", "part"),
    [
        (Centred, "outputs", "other scores for an image alone"),
        (Mixed, "outputs", "batch_first=True"),
        (StandardisedInTraining, "sparse_weights", "hidden"),
        (ChangesItself, "training_step", "got a change of hidden.weight in training mode"),
        (lambda: OnlyALayer(64, CLASSES), "network", "itself a OnlyALayer layer"),
    ],
    ids=["centred", "mixed", "standardised in training", "changes itself", "only a layer"],
)
def test_faults_of_batches_and_of_training_mode_are_reported(make: Callable[[], nn.Module], check: str, part: str) -> None:
    findings = errors(lambda shape, classes: make())
    assert part in findings[check]
