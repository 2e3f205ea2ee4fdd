"""What a network must stand before a sweep pays for anything: one report with all that is wrong with it.

Checked on random images of the sweep's shape, batch size, precision and device. Shapes: B batch, K classes. Reads:
arithmetic.py, weight_use.py, synflow.py, gradients.py. Read by: probe.py, orchestrator/preflight.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from trainables.arithmetic import (
    Run,
    Values,
    disagreement,
    drawn_elsewhere,
    evaluation_run,
    rounded_run,
    training_run,
    unequal_bits,
)
from trainables.config import TrialConfig
from trainables.data import load_data
from trainables.data_facts import DataFacts
from trainables.failures import SettingError, TrialError
from trainables.findings import Finding, Severity
from trainables.gradients import hessian_gradient_products, scoring_mode
from trainables.losses import batch_loss, check_loss
from trainables.models import build_model, initialize, initialized_network, prunable_weights
from trainables.network_builds import build_problem
from trainables.network_case import NetworkCase, NetworkReport
from trainables.node_data import PlannedData
from trainables.runtime import Runtime
from trainables.synflow import require_flow
from trainables.tensors import EVALUATION_BATCH
from trainables.training import make_optimizer
from trainables.user_code import OwnFiles, is_own
from trainables.weight_use import (
    densified_layers,
    gradient_failure,
    gradient_findings,
    unchanged_state,
    unprunable_layers,
)
from trainables.wording import one_line

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


def examine_network(
    case: NetworkCase,
    image_shape: tuple[int, int, int],
    num_classes: int,
    runtime: Runtime,
    evaluation_sizes: Sequence[int] = (EVALUATION_BATCH,),
) -> NetworkReport:
    """All findings about a network; its modules are imported already.

    Args:
        runtime: of the sweep; its precision is what "auto" stands for.
        evaluation_sizes: numbers of images in the batches of an evaluation; one image is tried anyway.
    """
    begun = time.perf_counter()
    runtime = runtime.for_trial(case.config.precision)
    runtime.activate()
    examination = _Examination(case, image_shape, num_classes, runtime, sorted({1, *evaluation_sizes}))
    with torch.random.fork_rng():
        try:
            examination.examine()
        except OUT_OF_MEMORY as error:  # a trial is tried again with a whole GPU, or says so in its record
            examination.out_of_memory(error)
    runtime.activate()
    return NetworkReport(
        case=case.id,
        model=case.config.model,
        findings=tuple(dict.fromkeys(examination.findings)),
        adjusted=examination.adjusted,
        seconds=time.perf_counter() - begun,
    )


def examine_cases(
    cases: Sequence[NetworkCase], data: PlannedData, facts: DataFacts | None, runtime: Runtime, own: OwnFiles
) -> list[NetworkReport]:
    """The reports of several networks on one data set.

    Args:
        facts: of the data; without them its images are loaded.
    """
    reports = []
    for case in cases:
        config = case.config
        try:
            own.activate(config)
            if facts is None:
                loaded = load_data(config.dataset, data.here(), runtime.device, runtime.threads)
                shape, classes = loaded.image_shape, loaded.num_classes
                counts = len(loaded.train) + len(loaded.validation), len(loaded.test)
            else:
                shape, classes = facts.image_shape, facts.num_classes
                counts = sum(facts.train_counts), sum(facts.test_counts)
        except SettingError as error:
            finding = Finding(check="network", severity="error", message=str(error))
            reports.append(NetworkReport(case=case.id, model=config.model, findings=(finding,), adjusted={}, seconds=0.0))
            continue
        reports.append(examine_network(case, shape, classes, runtime, evaluation_sizes(config, *counts)))
    return reports


def evaluation_sizes(config: TrialConfig, train_images: int, test_images: int) -> list[int]:
    """Sizes of all batches that evaluations of the validation and test images are made in, give or take an image of a class."""
    if config.dataset.limit is not None:
        train_images, test_images = config.dataset.limit, config.dataset.limit // 5
    sizes: set[int] = set()
    for images in (test_images, round(config.dataset.validation * train_images)):
        sizes |= {min(images, EVALUATION_BATCH), images % EVALUATION_BATCH}
    return sorted(sizes - {0})


@dataclass
class _Examination:
    case: NetworkCase
    image_shape: tuple[int, int, int]
    num_classes: int
    runtime: Runtime
    evaluation_sizes: list[int]
    findings: list[Finding] = field(default_factory=list)
    adjusted: dict[str, Any] = field(default_factory=dict)

    def examine(self) -> None:
        config = self.case.config
        try:
            check_loss(config.training.loss, self.num_classes, torch.device(self.runtime.device))
            model = self._built()
            for member in self.case.configs:
                prunable_weights(model, member.prunable.exclude)
        except TrialError as error:
            self._add("network", str(error))
            return
        for member in self._by_exclude():
            self.findings += unprunable_layers(model, member.prunable.exclude)
        if self._failed:
            return
        if is_own(config.model) and (problem := build_problem(config, self.image_shape, self.num_classes, model)):
            self._add("builds", *problem)
            return
        placed = self._placed(model)
        if placed is None or (is_own(config.model) and not self._answers(placed)):
            return
        self._trains(placed)
        if self._failed or not is_own(config.model):  # of the others the tests know the rest
            return
        self._uses_its_weights(placed)
        if not self._failed:
            self._suits_methods(placed)
        if not self._failed:
            self._steps(placed)

    @property
    def _failed(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def _by_exclude(self) -> list[TrialConfig]:
        return list({member.prunable.exclude: member for member in self.case.configs}.values())

    def _add(self, check: str, message: str, hint: str = "", severity: Severity = "error") -> None:
        self.findings.append(Finding(check=check, severity=severity, message=message, hint=hint))

    def out_of_memory(self, error: BaseException) -> None:
        message = (
            f"not all of the network could be checked: a batch of {self.case.config.training.batch_size} images needs more "
            f"memory than {self.runtime.device} has left ({_first_line(error)})"
        )
        self._add("memory", message, "lower training.batch_size if trials run out of memory too", "warning")

    def _built(self) -> nn.Module:
        config = self.case.config
        if is_own(config.model):
            return initialized_network(config, self.image_shape, self.num_classes)
        model = build_model(config.model, self.image_shape, self.num_classes, config.width, device="cpu")
        initialize(model, config.seed, config.initialization)
        return model

    def _images(self, count: int) -> Tensor:
        """Normalised noise; the same first images for every count."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn((count, *self.image_shape), generator=generator).to(self.runtime.device)

    def _labels(self, count: int) -> Tensor:
        return (torch.arange(count) % self.num_classes).to(self.runtime.device)

    def _placed(self, model: nn.Module) -> nn.Module | None:
        """The network in the memory order that it can compute in, told where that is not the sweep's."""
        state = {name: value.clone() for name, value in model.state_dict().items()}
        contiguous = replace(self.runtime, channels_last=False)
        problem: Exception | None = None
        for runtime in dict.fromkeys((self.runtime, contiguous)):
            try:
                placed = runtime.place(model)
                placed.load_state_dict(state)
                images = runtime.arranged(self._images(2))
                with runtime.autocast():
                    outputs = placed.train()(images)
                if isinstance(outputs, Tensor) and outputs.requires_grad:
                    outputs.float().sum().backward()
                placed.zero_grad(set_to_none=True)
                placed.load_state_dict(state)
            except OUT_OF_MEMORY:
                raise
            except Exception as error:
                problem = problem or error
                model = self._built()
                continue
            if runtime != self.runtime:
                self._add(
                    "memory_order",
                    f"the network fails with images in channels_last order ({_first_line(problem)}), so its trials keep the "
                    "contiguous order",
                    "use flatten or reshape in place of view for the faster one",
                    "warning",
                )
                self.runtime = contiguous
                self.adjusted["channels_last"] = False
            return placed
        assert problem is not None
        finding = gradient_failure(problem)
        self._add(
            "training_step", f"the network must be able to train on a batch of images, got {_first_line(problem)}", finding.hint
        )
        return None

    def _answers(self, model: nn.Module) -> bool:
        """Whether outputs in eval mode are class scores, for every size of a batch, and nothing changes there."""
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for count in self.evaluation_sizes:
            try:
                outputs = [
                    evaluation_run(model, self._images(count))(self.runtime)["outputs"] for _ in range(2 if count == 1 else 1)
                ]
            except OUT_OF_MEMORY:
                raise
            except Exception as error:
                self._add(
                    "outputs",
                    f"the network must take a batch of {count} images in eval mode, got {_first_line(error)}",
                    "correct its forward",
                )
                return False
            if not self._are_scores(outputs[0], count, "eval"):
                return False
        torch.manual_seed(0)
        images = self.runtime.arranged(self._images(2))
        model.eval()
        with torch.inference_mode():
            first, second = model(images), model(images)
        if not torch.equal(first, second):
            self._add(
                "outputs",
                "the network must answer the same twice in eval mode, got two answers",
                "give dropout training=self.training, and draw nothing at random there",
            )
        changed = [name for name, value in model.state_dict().items() if not _same(value, before[name])]
        if changed:
            self._add(
                "outputs",
                f"the network must change nothing in eval mode, got another {changed[0]}",
                "change buffers only while self.training",
            )
        if self.case.config.training.loss == "cross_entropy" and _are_probabilities(first.float()):
            self._add(
                "outputs",
                "the network returns probabilities, and cross_entropy takes their softmax once more",
                "return logits",
                "warning",
            )
        return not self._failed

    def _are_scores(self, outputs: Any, count: int, mode: str) -> bool:
        got = ""
        if not isinstance(outputs, Tensor):
            got = type(outputs).__name__
        elif tuple(outputs.shape) != (count, self.num_classes):
            got = f"shape {tuple(outputs.shape)}"
        elif not bool(outputs.float().isfinite().all()):
            got = "values that are not finite"
        if got:
            self._add(
                "outputs",
                f"the network must return finite class scores of shape ({count}, {self.num_classes}) in {mode} mode, got {got}",
                "return the main scores alone, in both modes",
            )
        return not got

    def _trains(self, model: nn.Module) -> None:
        """One training pass in the sweep's batch: its output, its gradients, and the arithmetic behind them."""
        config = self.case.config
        count = config.training.batch_size
        images, labels = self._images(count), self._labels(count)
        with unchanged_state(model), torch.no_grad(), self.runtime.autocast():
            try:
                outputs = model.train()(self.runtime.arranged(images[:2] if count > 1 else images))
            except OUT_OF_MEMORY:
                raise
            except Exception as error:
                self._add(
                    "outputs",
                    f"the network must take a batch of images in training mode, got {_first_line(error)}",
                    "correct its forward",
                )
                return
        if not self._are_scores(outputs, min(count, 2), "training"):
            return
        loss_of = batch_loss(config.training.loss, config.training.label_smoothing)
        run = training_run(model, images, labels, loss_of)
        exact = replace(self.runtime, precision="fp32")

        def rounded() -> Values:
            return rounded_run(model, images, labels, loss_of)(exact)

        try:
            with unchanged_state(model):
                self._computes(run, rounded, [evaluation_run(model, self._images(size)) for size in self.evaluation_sizes[1:]])
        except OUT_OF_MEMORY:
            raise
        except RuntimeError as error:
            finding = gradient_failure(error)
            hint = "set resources.deterministic: false" if "deterministic" in str(error) else finding.hint
            self._add(
                "training_step",
                f"the network must be able to train on a batch of {count} images, got {_first_line(error)}",
                hint,
            )

    def _computes(self, training: Run, rounded: Callable[[], Values], evaluations: list[Run]) -> None:
        """Tries the sweep's precision; where that is bf16 by `auto` and wrong, fp32."""
        problem = self._arithmetic_problem(training, rounded, evaluations)
        if problem and self.runtime.precision == "bf16":
            if self.case.config.precision == "bf16":
                self._add(
                    "arithmetic",
                    f"precision: bf16 must give the network's own numbers on this machine, but {problem}",
                    "set precision: fp32",
                )
                return
            self._add("arithmetic", f"precision: auto is fp32 for this network, since in bf16 {problem}", "", "warning")
            self.runtime = replace(self.runtime, precision="fp32")
            self.adjusted["precision"] = "fp32"
            problem = self._arithmetic_problem(training, rounded, evaluations)
        if problem:
            source = drawn_elsewhere(training, self.runtime)
            hint = (
                f"draw with torch in forward, not with {source}"
                if source
                else "report it with the network; another device may compute it"
            )
            self._add("arithmetic", f"the network must compute the same bits twice, but {problem}", hint)

    def _arithmetic_problem(self, training: Run, rounded: Callable[[], Values], evaluations: list[Run]) -> str:
        exact = replace(self.runtime, precision="fp32")
        for kind, run in [("training", training), *(("evaluation", one) for one in evaluations)]:
            differing, values = unequal_bits(run, self.runtime)
            if differing:
                return f"two runs of the same {kind} pass differ in {differing}, as if unused memory was read"
            compares = self.runtime.precision == "bf16" and kind == "training"
            if compares and (problem := disagreement(values, run(exact), rounded)):
                return problem
        return ""

    def _uses_its_weights(self, model: nn.Module) -> None:
        count = min(self.case.config.training.batch_size, 8)
        images, labels = self.runtime.arranged(self._images(count)), self._labels(count)
        loss_of = batch_loss(self.case.config.training.loss)
        for member in self._by_exclude():
            weights = prunable_weights(model, member.prunable.exclude)
            with unchanged_state(model), scoring_mode(model, "batch"):
                findings = gradient_findings(loss_of(model(images).float(), labels), weights)
            self.findings += findings
            if findings:
                continue
            with unchanged_state(model):
                self.findings += densified_layers(model, weights, images[:2])

    def _suits_methods(self, model: nn.Module) -> None:
        for member in self.case.configs:
            weights = prunable_weights(model, member.prunable.exclude)
            if member.method == "synflow":
                try:
                    require_flow(model, weights, self.image_shape)
                except SettingError as error:
                    message, _, hint = str(error).partition("; ")
                    self._add("synflow", message, hint)
            if member.method == "grasp":
                self._twice_differentiable(model, weights, member)

    def _twice_differentiable(self, model: nn.Module, weights: dict[str, Tensor], member: TrialConfig) -> None:
        count = min(member.training.batch_size, 8)
        batches = [(self._images(count), self._labels(count))]
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        options = member.grasp
        try:
            with unchanged_state(model):
                hessian_gradient_products(
                    model, weights, masks, batches, self.runtime, options.batch_norm, options.temperature, member.training.loss
                )
        except OUT_OF_MEMORY:
            raise
        except (SettingError, RuntimeError) as error:
            self._add(
                "grasp",
                f"method grasp must have a network whose gradient can be differentiated again, got {_first_line(error)}",
                "use layers with a second derivative, or take another method",
            )

    def _steps(self, model: nn.Module) -> None:
        """The optimizer takes every parameter, with what the training asks of it."""
        count = min(self.case.config.training.batch_size, 8)
        try:
            with unchanged_state(model):
                optimizer = make_optimizer(model, self.case.config.training)
                with scoring_mode(model, "batch"), self.runtime.autocast():
                    outputs = model(self.runtime.arranged(self._images(count)))
                batch_loss(self.case.config.training.loss)(outputs.float(), self._labels(count)).backward()
                optimizer.step()
        except OUT_OF_MEMORY:
            raise
        except RuntimeError as error:
            self._add(
                "training_step",
                f"the optimizer must be able to step, got {_first_line(error)}",
                "correct the network's parameters",
            )


def _are_probabilities(outputs_BK: Tensor) -> bool:
    sums = outputs_BK.sum(1)
    return outputs_BK.shape[1] > 1 and bool((outputs_BK >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)


def _same(value: Tensor, before: Tensor) -> bool:
    return torch.equal(value, before) or (
        value.is_floating_point() and torch.equal(value.nan_to_num(7e30), before.nan_to_num(7e30))
    )


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines() if error is not None else []
    return f"{type(error).__name__}: {one_line(lines[0])}" if lines else type(error).__name__
