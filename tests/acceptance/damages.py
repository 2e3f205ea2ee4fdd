"""Every kind of file of a storage damaged in four ways, and random damages of random files.

    python -m tests.acceptance.damages [NUMBER]      random damages, 2,000 without a number

The storage has ten trials. Each damage is read by status, report, plan (and, kind by kind, sync), and undone. Then several
files are damaged at once, and a real `run` has to end with the digests that there were. Printed: commands with a traceback,
sweeps with other digests, and numbers that were accepted from a record that is not what was written; all three must be 0.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.cli import main as drive_sweep_here
from orchestrator.reporting.report import make_report
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.trial_results import damaged_metrics, read_results
from orchestrator.storage.factory import open_storage
from tests.support.cli import drive_sweep, tiny_sweep

Damage = Callable[[bytes, random.Random], bytes]
HEALS = 40  # real runs in the random part
AT_ONCE = 12  # files that are damaged before each


def flipped(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return b"\x01"
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def doubled(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start : start + 64] + content[start:]


DAMAGES: dict[str, Damage] = {
    "empty": lambda content, draw: b"",
    "cut": lambda content, draw: content[: len(content) // 2],
    "flipped": flipped,
    "foreign": lambda content, draw: draw.randbytes(300),
}
RANDOM: list[Damage] = [
    *DAMAGES.values(),
    flipped,
    flipped,
    doubled,
    lambda content, draw: content[: draw.randrange(len(content) + 1)],
]


class Proof:
    """A finished sweep, what its records say, and the three counts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sweep_file = tiny_sweep(root, epochs=1)
        self.sweep_file.write_text(self.sweep_file.read_text().replace("[1, 5]", "[1, 3, 5]"))  # ten trials
        self.storage = root / "runs"
        drive_sweep("run", self.sweep_file, "--storage", self.storage, "--quiet")
        storage = open_storage(str(self.storage))
        self.results, _ = read_results(storage, storage.names("trials"))
        self.digests = {key: str(result["model_sha256"]) for key, result in self.results.items()}
        self.settings = self._reported()
        self.commands = self.tracebacks = self.accepted = self.runs = self.other_digests = 0

    def files(self) -> list[Path]:
        return sorted(
            path
            for path in self.storage.rglob("*")
            if path.is_file() and "mlflow" not in path.name and "artifacts" not in path.parts and ".aside" not in path.parts
        )

    def read(self, what: str, commands: tuple[str, ...]) -> None:
        """Runs the commands that only read, and compares what they take from records."""
        for command in commands:
            arguments = {"plan": ["plan", str(self.sweep_file)], "data": []}.get(command, [command, "tiny"])
            self.commands += 1
            output = self.root / "output"
            with redirected(output):
                try:
                    drive_sweep_here([*arguments, "--storage", str(self.storage)])
                except SystemExit:
                    pass
                except BaseException:
                    traceback.print_exc()
            if "Traceback" in output.read_text(errors="replace"):
                self.tracebacks += 1
                print(f"{what}: {command}: {output.read_text(errors='replace')[-1500:]}", flush=True)
        storage = open_storage(str(self.storage))
        results, _ = read_results(storage, list(self.digests))
        whole = {key: result for key, result in results.items() if key not in damaged_metrics(storage, results)}
        wrong = [key for key, result in whole.items() if result != self.results[key]]
        reported = self._reported()
        wrong += [key for key, row in reported.items() if row != self.settings[key]]
        if wrong:
            self.accepted += 1
            print(f"{what}: other numbers of {wrong}", flush=True)

    def _reported(self) -> dict[str, object]:
        """What the report says of each configuration, by its trials."""
        storage = open_storage(str(self.storage))
        folder = SweepFolder(storage, "tiny")
        state = folder.read_state()
        if state is None:
            return {}
        rows = make_report(folder, state).to_json()["settings"]
        return {str(row["trials"]): {name: row[name] for name in ("val/accuracy", "test/accuracy", "config")} for row in rows}

    def heal(self, what: str) -> None:
        """A real run over whatever is damaged."""
        self.runs += 1
        answer = drive_sweep("run", self.sweep_file, "--storage", self.storage, "--quiet", expect=None)
        if "Traceback" in answer.stderr + answer.stdout:
            self.tracebacks += 1
            print(f"{what}: run: {answer.stderr[-1500:]}", flush=True)
        results, damage = read_results(open_storage(str(self.storage)), list(self.digests))
        now = {key: str(result["model_sha256"]) for key, result in results.items()}
        if answer.code != 0 or damage or now != self.digests:
            self.other_digests += 1
            print(f"{what}: run ended with {answer.code}, {damage or 'other digests'}: {answer.stderr[-500:]}", flush=True)
        self.results = results

    def print(self, title: str, started_at: float) -> None:
        print(
            f"{title}: {self.commands} commands and {self.runs} runs in {time.monotonic() - started_at:.0f} s; "
            f"with a traceback {self.tracebacks}, with other digests {self.other_digests}, "
            f"numbers accepted from other records {self.accepted}",
            flush=True,
        )


@contextmanager
def redirected(output: Path) -> Iterator[None]:
    """Stdout and stderr of this process, below Python too, go into the file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    with open(output, "wb") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


@contextmanager
def damaged(file: Path, damage: Damage, draw: random.Random) -> Iterator[None]:
    """Afterwards the storage's files are as they were, those that a command wrote anew included."""
    backup = {path: path.read_bytes() for path in {file, file.parents[0] / "storage.json"} if path.exists()}
    file.write_bytes(damage(backup[file], draw))
    try:
        yield
    finally:
        for path, content in backup.items():
            path.write_bytes(content)


def kind_of(file: Path) -> str:
    return "snapshot" if file.name.startswith("epoch-") else file.name


def by_kind(proof: Proof, draw: random.Random) -> None:
    kinds: dict[str, list[Path]] = {}
    for path in proof.files():
        kinds.setdefault(kind_of(path), []).append(path)
    print(f"{len(kinds)} kinds: {', '.join(kinds)}", flush=True)
    backup, results = proof.root / "backup", proof.results
    shutil.copytree(proof.storage, backup)
    for name, damage in DAMAGES.items():
        for kind, paths in kinds.items():
            with damaged(draw.choice(paths), damage, draw):
                proof.read(f"{kind} {name}", ("status", "report", "plan", "sync"))
            shutil.rmtree(proof.storage)
            shutil.copytree(backup, proof.storage)
        for paths in kinds.values():
            file = draw.choice(paths)
            file.write_bytes(damage(file.read_bytes(), draw))
        proof.heal(f"all kinds {name}")
        shutil.rmtree(proof.storage)
        shutil.copytree(backup, proof.storage)
        proof.results = results


def at_random(proof: Proof, draw: random.Random, number: int) -> None:
    for index in range(number):
        file = draw.choice(proof.files())
        with damaged(file, draw.choice(RANDOM), draw):
            proof.read(f"{file.relative_to(proof.storage)} number {index}", ("status", "report", "plan"))
        if (index + 1) % max(1, number // HEALS) == 0:
            for file in draw.sample(proof.files(), AT_ONCE):
                file.write_bytes(draw.choice(RANDOM)(file.read_bytes(), draw))
            proof.heal(f"number {index}")


def main(number: int) -> None:
    draw, started_at = random.Random(0), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drive-sweep-proof-") as scratch:
        proof = Proof(Path(scratch))
        print(f"{len(proof.digests)} trials, {len(proof.files())} files", flush=True)
        by_kind(proof, draw)
        proof.print("every kind of file, four damages", started_at)
        proof.commands = proof.runs = 0
        at_random(proof, draw, number)
        proof.print(f"{number} random damages", started_at)
    print(json.dumps({"tracebacks": proof.tracebacks, "other_digests": proof.other_digests, "accepted": proof.accepted}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
