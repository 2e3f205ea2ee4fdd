"""The sweep that a competent user writes by hand with Ray Tune, MLflow and PyTorch, to be compared with `drive-sweep run`.

    python -m tests.benchmarks.baseline_tune PLAN.json FOLDER [--models] [--workers N]

FOLDER is a new or empty one for Ray's results, mlflow.db and artifacts. Both sides train the same networks; the rest is
plain: one process per trial, DataLoader, torch.optim, torch.nn.utils.prune, every warm-up trained again. `--models` logs
every trial's model to its MLflow run. Prints one line of JSON. The plan, in which `limit` may be null and a dense trial
needs no more than its method and seed:

    {"dataset": {"name": "image_folder", "root": "data", "image_size": 32, "limit": 640, "validation": 0.0},
     "model": "resnet20", "cpus": 2, "cpus_per_trial": 1,
     "trials": [{"method": "drive", "warmup_epochs": 1, "prune_iterations": 5, "sparsity": 0.9, "seed": 0}],
     "training": {"epochs": 2, "batch_size": 128, "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}}

or the data set "digits", without root and size, or "fashion_mnist", whose root holds the four published files. The images of
a folder must have the size already.
"""

# ruff: noqa: E402

from __future__ import annotations

import os
import secrets
import time

BEGUN = time.perf_counter()  # before anything heavy is imported; Ray reads the environment while it is
os.environ.update(
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_AUTH_MODE="token",  # for this Ray alone, not in the home folder
    RAY_AUTH_TOKEN=secrets.token_hex(32),
    RAY_USAGE_STATS_ENABLED="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
)

import argparse
import copy
import gzip
import itertools
import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from trainables.models.registry import build_model, initialize

IMPORT_SECONDS = time.perf_counter() - BEGUN
EXPERIMENT, WEIGHTS = "by-hand", "weights.pt"

Images = Dataset[tuple[Tensor, Tensor]]
Batches = DataLoader[tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="by_hand")
    parser.add_argument("plan", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", action="store_true", help="log every trial's model")
    parser.add_argument("--workers", type=int, default=0, help="of each DataLoader")
    options = parser.parse_args()
    plan = json.loads(options.plan.read_text())
    if plan["dataset"].get("root"):
        plan["dataset"]["root"] = str(Path(plan["dataset"]["root"]).expanduser().absolute())
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    started_at = time.perf_counter()
    ray.init(num_cpus=plan["cpus"], include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    start_seconds = time.perf_counter() - started_at
    results = run_sweep(plan | {"workers": options.workers, "keep_weights": options.models}, folder)
    seconds = time.perf_counter() - started_at
    names = ("test/accuracy", "val/accuracy", "kept", "seconds")
    trials = [
        {"config": result.config["trial"]} | {name: result.metrics[name] for name in names if name in result.metrics}
        for result in results
    ]
    print(json.dumps({"seconds": seconds, "import_seconds": IMPORT_SECONDS, "start_seconds": start_seconds, "trials": trials}))


def run_sweep(plan: dict[str, Any], folder: Path) -> Any:
    """Tune's results, one per trial in the order of the plan, after all of them are in MLflow.

    Raises:
        RuntimeError: a trial failed.
    """
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri())
    trainable = tune.with_resources(tune.with_parameters(run_trial, plan=plan), {"cpu": plan["cpus_per_trial"]})
    logger_type = ModelLogger if plan["keep_weights"] else MLflowLoggerCallback
    logger = logger_type(tracking_uri=tracking_uri, experiment_name=EXPERIMENT)
    results = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(plan["trials"])},
        run_config=tune.RunConfig(name=EXPERIMENT, storage_path=str(folder / "ray"), callbacks=[logger], verbose=0),
    ).fit()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} of {len(results)} trials failed, the first with: {results.errors[0]}")
    return results


class ModelLogger(MLflowLoggerCallback):  # type: ignore[misc]
    """Logs also the model of a trial that has ended well, from the checkpoint that it left."""

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        if not failed:
            left = torch.load(Path(trial.checkpoint.path, WEIGHTS))
            network = build_model(left["model"], left["image_shape"], left["num_classes"])
            network.load_state_dict(left["weights"])
            with mlflow.start_run(run_id=self._trial_runs[trial]):
                mlflow.pytorch.log_model(
                    network.eval(),
                    name=f"model-{trial.trial_id}",
                    pip_requirements=[f"torch=={torch.__version__}", f"mlflow=={mlflow.__version__}"],
                    serialization_format="pickle",
                )
        super().log_trial_end(trial, failed)


def run_trial(config: dict[str, Any], plan: dict[str, Any]) -> None:
    """Warm-up, pruning, sparse training, test; reported to Tune after every epoch and at the end."""
    started_at = time.perf_counter()
    trial, training, epochs = config["trial"], plan["training"], plan["training"]["epochs"]
    torch.set_num_threads(plan["cpus_per_trial"])
    torch.manual_seed(trial["seed"])
    loaders = make_loaders(plan["dataset"], training["batch_size"], plan["workers"])
    network = build_model(plan["model"], loaders.image_shape, loaders.num_classes)
    initialize(network, trial["seed"])
    layers: list[Any] = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    prunable = sum(layer.weight.numel() for layer in layers)

    train(network, loaders, training, trial.get("warmup_epochs", 0), milestones=[])
    rounds = trial["prune_iterations"] if trial["method"] == "drive" else 0
    for round_ in range(1, rounds + 1):
        prune_round(network, layers, loaders.scoring, round(prunable * (1 - trial["sparsity"]) ** (round_ / rounds)))
    train(network, loaders, training, epochs, milestones=sorted({epochs // 2, epochs * 3 // 4} - {0}))

    kept = sum(int(layer.weight_mask.sum()) for layer in layers) if rounds else prunable
    metrics = {"test/accuracy": accuracy(network, loaders.test), "kept": kept}
    if loaders.validation is not None:
        metrics["val/accuracy"] = accuracy(network, loaders.validation)
    for layer in layers if rounds else []:
        prune.remove(layer, "weight")
    checkpoint = None
    with tempfile.TemporaryDirectory() as left:
        if plan["keep_weights"]:
            about = {"model": plan["model"], "image_shape": loaders.image_shape, "num_classes": loaders.num_classes}
            torch.save(about | {"weights": network.state_dict()}, Path(left, WEIGHTS))
            checkpoint = tune.Checkpoint.from_directory(left)
        tune.report(metrics | {"seconds": time.perf_counter() - started_at}, checkpoint=checkpoint)


def train(network: nn.Module, loaders: Loaders, training: dict[str, Any], epochs: int, milestones: list[int]) -> None:
    """So many epochs of SGD, each reported to Tune; pruned weights stay zero through their parametrisation."""
    optimizer = torch.optim.SGD(
        network.parameters(), lr=training["lr"], momentum=training["momentum"], weight_decay=training["weight_decay"]
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    for _ in range(epochs):
        network.train()
        total = 0.0
        for images_BCHW, labels_B in loaders.train:
            loss = cross_entropy(network(images_BCHW), labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        scheduler.step()
        metrics = {"train/loss": total / len(loaders.train)}
        if loaders.validation is not None:
            metrics["val/accuracy"] = accuracy(network, loaders.validation)
        tune.report(metrics)


@torch.no_grad()
def accuracy(network: nn.Module, batches: Batches) -> float:
    """Share of the images that the network recognises."""
    network.eval()
    hits = seen = 0
    for images_BCHW, labels_B in batches:
        hits += int((network(images_BCHW).argmax(1) == labels_B).sum())
        seen += len(labels_B)
    return hits / seen


def prune_round(network: nn.Module, layers: list[Any], batches: Batches, count: int) -> None:
    """Leaves the `count` weights of the network that score highest: |w| + |w g| + |g|, each over its mean of survivors."""
    network.train()
    network.zero_grad()
    images_BCHW, labels_B = next(iter(batches))
    cross_entropy(network(images_BCHW), labels_B).backward()
    parameters = [getattr(layer, "weight_orig", layer.weight) for layer in layers]
    masks = [getattr(layer, "weight_mask", torch.ones_like(layer.weight)) for layer in layers]
    alive = torch.cat([mask.flatten() for mask in masks]) == 1
    sizes = torch.cat([parameter.detach().abs().flatten() for parameter in parameters])
    slopes = torch.cat([parameter.grad.abs().flatten() for parameter in parameters])
    score = torch.zeros_like(sizes)
    for term in (sizes, sizes * slopes, slopes):
        score += term / term[alive].mean()
    parts = [part.view_as(mask) for part, mask in zip(score.split([mask.numel() for mask in masks]), masks, strict=True)]
    prune.global_unstructured(
        [(layer, "weight") for layer in layers],
        pruning_method=prune.L1Unstructured,
        importance_scores={(layer, "weight"): part for layer, part in zip(layers, parts, strict=True)},
        amount=int(alive.sum()) - count,  # counted among the survivors
    )


@dataclass(kw_only=True)
class Loaders:
    """Batches of one trial; `scoring` are training images without augmentation."""

    train: Batches
    scoring: Batches
    validation: Batches | None
    test: Batches
    image_shape: tuple[int, int, int]
    num_classes: int


def make_loaders(dataset: dict[str, Any], batch_size: int, workers: int) -> Loaders:
    """Everything that a trial reads, with the same limit and validation images in every trial."""
    read = {"image_folder": image_folder, "digits": digits, "fashion_mnist": fashion_mnist}[dataset["name"]]
    augmented, plain, labels, test, test_labels = read(dataset)
    limit = dataset["limit"] or len(labels)
    chosen = balanced(labels, range(len(labels)), limit)
    tested = balanced(test_labels, range(len(test_labels)), limit // 5 if dataset["limit"] else len(test_labels))
    held_out = balanced(labels, chosen, round(dataset.get("validation", 0.0) * limit))
    trained = sorted(set(chosen) - set(held_out))

    def shuffled(images: Images, workers: int) -> Batches:
        return DataLoader(Subset(images, trained), batch_size=batch_size, shuffle=True, drop_last=True, num_workers=workers)

    def in_order(images: Images, which: list[int]) -> Batches:
        return DataLoader(Subset(images, which), batch_size=500, num_workers=workers)

    channels, height, width = plain[0][0].shape
    return Loaders(
        train=shuffled(augmented, workers),
        scoring=shuffled(plain, 0),  # one batch a round: starting workers would cost more
        validation=in_order(plain, held_out) if held_out else None,
        test=in_order(test, tested),
        image_shape=(channels, height, width),
        num_classes=len(set(labels)),
    )


def image_folder(dataset: dict[str, Any]) -> tuple[Any, Any, list[int], Any, list[int]]:
    """Training images with and without augmentation, their labels, test images, theirs."""
    from torchvision.datasets import ImageFolder

    from tests.benchmarks.baseline_loop import augmented, unchanged

    training = ImageFolder(f"{dataset['root']}/train", augmented(dataset["image_size"]))
    plain = copy.copy(training)
    plain.transform = unchanged()
    test = ImageFolder(f"{dataset['root']}/test", unchanged())
    return training, plain, training.targets, test, test.targets


def digits(dataset: dict[str, Any]) -> tuple[Any, Any, list[int], Any, list[int]]:
    """The same of scikit-learn's 8 x 8 digits: every fifth image of a class is a test image, none is augmented."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16, torch.tensor(bunch.target)
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        is_test[(labels == label).nonzero().flatten()[4::5]] = True
    images = (images - images[~is_test].mean()) / images[~is_test].std()
    training, test = (TensorDataset(images[part], labels[part]) for part in (~is_test, is_test))
    return training, training, labels[~is_test].tolist(), test, labels[is_test].tolist()


def fashion_mnist(dataset: dict[str, Any]) -> tuple[Any, Any, list[int], Any, list[int]]:
    """The same of Fashion-MNIST in its published files; none is augmented."""

    def read(split: str) -> tuple[Tensor, list[int]]:
        with gzip.open(f"{dataset['root']}/{split}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
        with gzip.open(f"{dataset['root']}/{split}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        return (torch.from_numpy(images / np.float32(255)) - 0.286) / 0.353, labels.tolist()

    (images, labels), (test_images, test_labels) = read("train"), read("t10k")
    training, test = TensorDataset(images, torch.tensor(labels)), TensorDataset(test_images, torch.tensor(test_labels))
    return training, training, labels, test, test_labels


def balanced(labels: Sequence[int], candidates: Sequence[int], count: int) -> list[int]:
    """`count` of the candidates, one of each class in turn, always the same ones.

    Raises:
        ValueError: there are fewer.
    """
    if count > len(candidates):
        raise ValueError(f"dataset.limit asks for {count} images, there are {len(candidates)}")
    by_class: dict[int, list[int]] = defaultdict(list)
    for position in torch.randperm(len(candidates), generator=torch.Generator().manual_seed(0)).tolist():
        by_class[labels[candidates[position]]].append(candidates[position])
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_class.values()))
    return [index for index in in_turn if index is not None][:count]


if __name__ == "__main__":
    main()
