"""Images per second of one trial's training, by setting, beside the plain DataLoader loop.

    python -m tests.benchmarks.throughput ROOT                  resnet20 and resnet18, fp32 and bf16, 1 and 2 threads, on a CPU
    python -m tests.benchmarks.throughput ROOT --device cuda    on a GPU, with and without compilation

ROOT holds train/CLASS/* and test/CLASS/*, 32 x 32. Needs neither Ray nor MLflow. Every measurement runs in a process of its
own; the settings of one network take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.summary import spread

BATCH = 128
IMAGES = 16 * BATCH


@dataclass(frozen=True, kw_only=True)
class Setting:
    model: str
    precision: str
    threads: int
    plain: bool = False
    device: str = "cpu"
    compile: bool = False
    channels_last: bool = True

    def __str__(self) -> str:
        if self.plain:
            return f"{self.model} plain loop, fp32, {self.threads} threads"
        layout = "" if self.channels_last else ", channels first"
        return f"{self.model} {self.precision}, {self.threads} threads{layout}{', compiled' if self.compile else ''}"


def settings(model: str, device: str) -> list[Setting]:
    cases = []
    for threads in (1, 2) if device == "cpu" else (1,):
        cases.append(Setting(model=model, precision="fp32", threads=threads, plain=True, device=device))
        cases += [
            Setting(model=model, precision=precision, threads=threads, device=device, compile=compiled, channels_last=last)
            for precision in ("fp32", "bf16")
            for compiled in ((False,) if device == "cpu" else (False, True))
            for last in ((False, True) if precision == "fp32" else (True,))
        ]
    return cases


def measure(setting: Setting, root: str, seconds: float) -> float:
    """Images per second in this process."""
    if setting.plain:
        from tests.benchmarks.baseline_loop import images_per_second

        steps = 8 if setting.model == "resnet20" else 2
        return images_per_second(root, setting.model, setting.threads, steps, device=setting.device)
    from trainables.config.keys import canonical
    from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig
    from trainables.data.source import DatasetSource
    from trainables.data.staging import StagedDataset
    from trainables.runtime.device import Runtime
    from trainables.worker.probe import Probe

    config = TrialConfig(
        dataset=DatasetConfig(name="image_folder", image_size=32, limit=IMAGES, validation=0),
        model=setting.model,
        precision="bf16" if setting.precision == "bf16" else "fp32",
        training=TrainingConfig(batch_size=BATCH),
    )
    runtime = Runtime(
        device=setting.device, threads=setting.threads, compile=setting.compile, channels_last=setting.channels_last
    )
    probe = Probe(
        canonical(config), StagedDataset(source=DatasetSource(name="image_folder", root=root, image_size=32)), runtime
    )
    probe.measure_peak_memory()
    return probe.images_per_second(seconds)


def in_process_of_its_own(setting: Setting, root: Path, seconds: float) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.throughput", str(root), "--seconds", str(seconds)]
    done = subprocess.run([*command, "--one", json.dumps(asdict(setting))], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="images per second")
    parser.add_argument("root", type=Path)
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet18"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.root.expanduser().absolute()
    if options.one:
        one: dict[str, Any] = options.one
        print(measure(Setting(**one), str(root), options.seconds))
        return
    for model in options.models:
        rates: dict[Setting, list[float]] = {setting: [] for setting in settings(model, options.device)}
        for _ in range(options.repeat):
            for setting, speeds in rates.items():
                speeds.append(in_process_of_its_own(setting, root, options.seconds))
        plain = {setting.threads: median(speeds) for setting, speeds in rates.items() if setting.plain}
        for setting, speeds in rates.items():
            times = median(speeds) / plain[setting.threads]
            print(f"{setting!s:48s} {spread(speeds)} images/s, {times:.2f} of the plain loop", flush=True)


if __name__ == "__main__":
    main()
