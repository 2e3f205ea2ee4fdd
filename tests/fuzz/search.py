"""Tries mutants of samples until the time is over, and collects what no reader may do.

That is: raise an undocumented error, take more than 5 s, take more than 1 GB of memory, or read damage as another value.
"""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.fuzz.choices import ByteChoices, Choices, RandomChoices
from tests.fuzz.edits import damaged
from tests.fuzz.sample import Sample
from trainables.runtime import sizes

MOST_SECONDS = 5.0
MOST_BYTES = 1 << 30
LONGEST_SCRIPT = 1 << 14  # bytes of a fuzzer's decisions; a raw file is one too


class HangError(BaseException):
    """A reader took more than MOST_SECONDS."""


@dataclass
class Findings:
    """What a run has seen.

    Attributes:
        crashes: place of the fault -> the first mutant that shows it, and its report.
    """

    executions: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    crashes: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    originals: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> str:
        return (
            f"{self.executions} executions, {self.refused} refused, slowest {self.slowest_s:.2f} s, {len(self.crashes)} crashes"
        )


def try_one(samples: Sequence[Sample], choices: Choices, findings: Findings) -> None:
    """Reads one mutant."""
    sample = samples[choices.number(len(samples))]
    way = choices.number(8)
    if way == 0 and isinstance(choices, ByteChoices):
        execute(sample, choices.data, findings, is_damage=False)
    elif way < 3:
        content = sample.edit(sample.content, choices)
        execute(sample, content, findings, is_damage=False)
    else:
        execute(sample, damaged(sample.content, choices), findings, is_damage=sample.is_checked)


def execute(sample: Sample, content: bytes, findings: Findings, *, is_damage: bool) -> None:
    """Reads a content, and notes what the reader may not do."""
    if sample.name not in findings.originals:
        findings.originals[sample.name] = sample.read(sample.content)
    original = findings.originals[sample.name]
    findings.executions += 1
    peak, started = peak_bytes(), time.monotonic()
    place, report = "", ""
    try:
        with alarm():
            value = sample.read(content)
        if value is None:
            findings.refused += 1
        elif is_damage and value != original and content != sample.content:
            place, report = (
                f"{sample.name}: silent",
                f"damage was read as another value:\n{value!r:.2000}\nfor\n{original!r:.2000}",
            )
    except sample.errors as error:
        findings.refused += 1
        if is_out_of_memory(error):
            place, report = f"{sample.name}: memory", "".join(traceback.format_exception(error))
    except (Exception, HangError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{sample.name}: {type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        report = "".join(traceback.format_exception(error))
    seconds = time.monotonic() - started
    findings.slowest_s = max(findings.slowest_s, seconds)
    if not place and seconds > MOST_SECONDS:
        place, report = f"{sample.name}: hang", f"took {seconds:.1f} s"
    if not place and peak_bytes() - peak > MOST_BYTES:
        place, report = f"{sample.name}: memory", f"took {peak_bytes() - peak} bytes"
    if place:
        findings.crashes.setdefault(place, (content, report))


def search(samples: Sequence[Sample], seconds: float, seed: int) -> Findings:
    """What seeded mutants find in so many seconds."""
    findings, choices, end = Findings(), RandomChoices(seed), time.monotonic() + seconds
    with bounded_memory():
        while time.monotonic() < end:
            try_one(samples, choices, findings)
    return findings


def guided_search(samples: Sequence[Sample], seconds: float, seed: int, report: Callable[[Findings], int]) -> NoReturn:
    """Lets atheris choose the mutants by the code that they reach, and ends the process with the report's exit code."""
    atheris: Any = import_module("atheris")
    findings, end = Findings(), time.monotonic() + seconds

    def try_script(script: bytes) -> None:
        try_one(samples, ByteChoices(script), findings)
        if time.monotonic() > end:
            os._exit(report(findings))

    with bounded_memory():
        options = [f"-seed={seed}", f"-max_len={LONGEST_SCRIPT}", "-len_control=20", "-rss_limit_mb=0", "-timeout=600"]
        atheris.Setup(["fuzz", *options, "-print_final_stats=0", "-verbosity=0"], try_script)
        atheris.Fuzz()
    raise AssertionError("atheris ended by itself")


@contextmanager
def alarm() -> Iterator[None]:
    """Raises HangError in the block after MOST_SECONDS."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise HangError(f"no answer after {MOST_SECONDS} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """In the block readers see a machine of MOST_BYTES, and whoever takes twice as much of addresses gets a MemoryError."""
    before, limits = sizes.memory, resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    sizes.memory = lambda: MOST_BYTES  # type: ignore[assignment]
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2 * MOST_BYTES, limits[1]))
    try:
        yield
    finally:
        sizes.memory = before
        resource.setrlimit(resource.RLIMIT_AS, limits)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_crashes(findings: Findings, folder: Path) -> None:
    """One file for each crash, with its report beside it."""
    for content, report in findings.crashes.values():
        file = folder / hashlib.sha256(content).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.with_suffix(".txt").write_text(report)
