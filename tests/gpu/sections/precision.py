"""The check of precision before a sweep, on this device: for networks, and for a case that PyTorch has computed wrongly.

The bad case is bf16 on images of 1 x 16 x 4: its convolutions with stride 2 have read uninitialised memory on some processors
(pytorch#169688). There the check must either find the numbers right or fall back to fp32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.gpu.rows import Bench, Row, checked, measured
from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig
from trainables.models.losses import batch_loss
from trainables.models.registry import build_model, initialize
from trainables.preflight.arithmetic import nondeterministic_values, training_run
from trainables.preflight.network_case import NetworkReport, cases_of
from trainables.preflight.network_checks import examine_network
from trainables.runtime.device import Runtime, resolve_precision

CIFAR, BAD = (3, 32, 32), (1, 16, 4)
CLASSES = 10


def measure(bench: Bench) -> Iterator[Row]:
    yield measured("precision auto", resolve_precision("auto", bench.device), note="what this device multiplies")
    batch_size, models = (8, ("convnet",)) if bench.brief else (128, ("convnet", "resnet20", "resnet18", "vgg16"))
    for model in models:
        report = report_of(model, CIFAR, batch_size, bench.device)
        holds = not report.errors
        yield checked(f"{model} on {_shape(CIFAR)} asked for bf16", holds, "no error", _told(report))
    report = report_of("resnet20", BAD, 24, bench.device)
    found = report.adjusted.get("precision") == "fp32"
    differing = bits_that_differ(bench.device)
    yield checked(
        f"resnet20 on {_shape(BAD)}, the known bad case",
        not report.errors and (found or not differing),
        "right in bf16, or fp32 instead",
        f"{_told(report)}; two passes {f'differ in {differing}' if differing else 'are equal'}",
    )


def report_of(model: str, image_shape: tuple[int, int, int], batch_size: int, device: str) -> NetworkReport:
    """What the check says of a network for which "auto" chose bf16."""
    config = TrialConfig(
        dataset=DatasetConfig(name="image_folder", image_size=image_shape[1]),
        model=model,
        training=TrainingConfig(batch_size=batch_size),
    )
    (case,) = cases_of([config])
    return examine_network(case, image_shape, CLASSES, Runtime(device=device, precision="bf16"), evaluation_sizes=(batch_size,))


def bits_that_differ(device: str) -> str:
    """The values of the bad case that differ between two passes in bf16, by name; looked for here without the check."""
    runtime = Runtime(device=device, precision="bf16")
    runtime.activate()
    network = build_model("resnet20", BAD, CLASSES)
    initialize(network, seed=0)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(24, *BAD, generator=generator).to(device)
    labels = (torch.arange(24) % CLASSES).to(device)
    names, _ = nondeterministic_values(
        training_run(runtime.to_device(network), images, labels, batch_loss("cross_entropy")), runtime
    )
    return names


def _told(report: NetworkReport) -> str:
    messages = "; ".join(finding.message for finding in report.findings)
    return f"{report.adjusted.get('precision', 'bf16')}{f': {messages}' if messages else ''}"


def _shape(image_shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, image_shape))
