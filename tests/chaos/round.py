"""One round: a sweep, its faults, and what a user does about them until it has finished."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.checks import check
from tests.chaos.faults import full_disk
from tests.chaos.faults.fault import Fault, Hit, Scene
from tests.chaos.ground import Ground
from tests.chaos.plan import Moment, RoundPlan
from tests.chaos.records import FolderRecords, ObjectRecords, Records
from tests.chaos.sweep import Undisturbed
from tests.support.cli import Answer, ask, command, descendants
from tests.support.s3_server import BUCKET

MOST_ATTEMPTS = 6
ATTEMPT_S = 300.0  # after which a driver counts as hung
STACKS_S = 1.0
NOTED = 2000  # characters of an answer in round.log
POLL_S = 0.02
LOOK_S = 1.0  # between two looks for lost nodes


@dataclass(kw_only=True)
class Injection:
    """A fault of a round, and what became of it.

    Attributes:
        due: time of the monotonic clock at which its moment has come.
        hit: after it was injected.
        has_hit: whether it met what it was meant for; known when its attempt has ended.
    """

    moment: Moment
    fault: Fault
    due: float | None = None
    hit: Hit | None = None
    has_hit: bool = False

    def __str__(self) -> str:
        return f"{self.fault.name} ({self.moment}{'' if self.has_hit else ', too late'})"


@dataclass(kw_only=True)
class Outcome:
    """How a round ended.

    Attributes:
        codes: exit codes of its attempts, the last one included; None for one that hung.
        driver_seconds: of all attempts together.
        problems: what did not hold; empty if all did.
    """

    plan: RoundPlan
    injections: list[tuple[str, bool]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    driver_seconds: float = 0.0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Round:
    """One round on its ground."""

    def __init__(self, ground: Ground, plan: RoundPlan, folder: Path, expected: Undisturbed | None) -> None:
        self.ground, self.plan, self.folder, self.expected = ground, plan, folder, expected
        self.name = f"round{plan.number}"
        self.events = folder / "events.jsonl"
        self.scratch = folder / "tmp"
        self.on_tmpfs = any(fault.name == full_disk.NAME for _, fault in plan.faults)
        self.injections = [Injection(moment=moment, fault=fault) for moment, fault in plan.faults]
        self.outcome = Outcome(plan=plan)
        self.damaged: list[str] = []
        self.draw = random.Random(f"{plan.seed}/{plan.number}/faults")
        self.records: Records
        if plan.setting.storage == "s3":
            self.storage = f"s3://{BUCKET}/{self.name}"
            self.records = ObjectRecords(ground.objects, self.name)
        else:
            self.storage = str(folder / "disk" / "runs")
            self.records = FolderRecords(Path(self.storage))

    def run(self) -> Outcome:
        """The whole round; whatever goes wrong is a problem of its outcome."""
        self.began = began = time.monotonic()
        self.scratch.mkdir(parents=True)
        if self.on_tmpfs:
            full_disk.mount(self.folder / "disk")
        for name, content in self.expected.data.items() if self.expected else ():
            self.records.write(name, content)
        try:
            self._attempts()
            if not self.outcome.problems:
                self.outcome.problems += check(self)
        except Exception:
            self.outcome.problems.append(traceback.format_exc())
        finally:
            self.outcome.seconds = time.monotonic() - began
            self.outcome.injections = [(one.fault.name, one.has_hit) for one in self.injections]
            self.outcome.texts = [str(one) for one in self.injections]
        return self.outcome

    def _attempts(self) -> None:
        for attempt in range(MOST_ATTEMPTS):
            scene = self._start(attempt)
            started = time.monotonic()
            try:
                code = self._watch(scene)
            finally:
                self._end(scene)
            self.outcome.driver_seconds += time.monotonic() - started
            self.outcome.codes.append(code)
            if code is None:
                self.outcome.problems.append(f"attempt {attempt + 1} did not end within {ATTEMPT_S:.0f} s")
                return
            if code == 0 and not scene.damaged:
                break
            self.damaged += scene.damaged
            self.ground.repair()
            if scene.damaged:
                self.ask("doctor", "--fix", "--storage", self.storage, *self.tracking_options())
        else:
            self.outcome.problems.append(f"not finished after {MOST_ATTEMPTS} attempts")
            return
        self.ground.repair()
        self.final_status = self.status()
        if self.final_status["tracking_pending"]:
            self.ask("sync", self.name, "--storage", self.storage)
            self.final_status = self.status()

    def _start(self, attempt: int) -> Scene:
        place: list[object] = ["--storage", self.storage, "--events", self.events, "--quiet"]
        environment = self.environment()
        if self.plan.setting.ray == "joined":
            place += ["--address", self.ground.cluster.gcs]
        if attempt == 0 or self.outcome.codes[-1] == 2 or f"sweeps/{self.name}/sweep.yaml" not in self.records.names():
            first = ["run", self.ground.file, "--name", self.name, "--set", f"tracking.experiment={self.name}"]
            line = command(*first, *self.tracking_options(), *place)
        else:
            line = command("resume", self.name, *place)
        with open(self.folder / "output.log", "ab") as output:
            output.write(f"--- attempt {attempt + 1}: {' '.join(line)}\n".encode())
            output.flush()
            driver = subprocess.Popen(line, stdout=output, stderr=output, env=environment, start_new_session=True)
        return Scene(
            ground=self.ground,
            setting=self.plan.setting,
            draw=self.draw,
            folder=self.folder,
            records=self.records,
            driver=driver,
        )

    def _watch(self, scene: Scene) -> int | None:
        """Injects what is due until the driver ends; its exit code, None if it hung."""
        looked = began = time.monotonic()
        while scene.driver.poll() is None:
            now = time.monotonic()
            if now - began > ATTEMPT_S:
                return None
            self._inject(scene)
            scene.do_what_is_due()
            if self.plan.setting.ray == "joined" and now - looked > LOOK_S:
                self.ground.replace_lost_nodes()
                looked = now
            time.sleep(POLL_S)
        return scene.driver.returncode

    def _inject(self, scene: Scene) -> None:
        lines, now = self.events.read_bytes().count(b"\n") if self.events.exists() else 0, time.monotonic()
        for one in self.injections:
            if one.hit is not None:
                continue
            if one.due is None:
                if not one.moment.events:
                    one.due = self.began + one.moment.seconds
                elif lines >= one.moment.events:
                    one.due = now + one.moment.seconds
            if one.due is not None and now >= one.due:
                one.hit = one.fault.inject(scene)
                if one.hit is not None:
                    self.note(f"{one.fault.name} at {lines} events, {now - self.began:.1f} s {scene.damaged}")

    def _end(self, scene: Scene) -> None:
        """Ends what is left of an attempt, by force if it hangs."""
        for one in self.injections:
            one.has_hit = one.has_hit or (one.hit is not None and one.hit())
        scene.do_what_is_due(all_of_it=True)
        if scene.driver.poll() is not None:
            return
        scene.driver.send_signal(signal.SIGABRT)  # it leaves the stacks of its threads in output.log
        time.sleep(STACKS_S)
        for pid in [scene.driver.pid, *descendants(scene.driver.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        scene.driver.wait()

    @property
    def has_killed(self) -> bool:
        """Whether a fault has ended a process that may have been writing."""
        return any(one.has_hit and one.fault.kills for one in self.injections)

    def environment(self) -> dict[str, str]:
        """Of this round's drivers."""
        environment = self.ground.driver_environment(self.scratch) | {"CHAOS_ROUND": str(self.folder)}
        if self.plan.setting.ray == "joined":
            environment |= self.ground.cluster.environment
        if self.plan.setting.storage == "s3":
            environment |= self.ground.objects.environment | {"AWS_ENDPOINT_URL": self.ground.store.uri}
        return environment

    def ask(self, *arguments: object) -> Answer:
        """What a command without faults answers; it needs no process of its own."""
        with changed_environment(self.environment()):
            answer = ask(*arguments, expect=None)
        text = answer.stdout + answer.stderr
        self.note(f"{' '.join(map(str, arguments))}: {answer.code}\n{text[:NOTED]}{'...' if len(text) > NOTED else ''}")
        return answer

    def status(self) -> dict[str, Any]:
        answer = self.ask("status", self.name, "--storage", self.storage, "--json")
        answer.require(0, ("status",))
        state: dict[str, Any] = json.loads(answer.stdout)
        return state

    def note(self, text: str) -> None:
        with open(self.folder / "round.log", "a") as file:
            file.write(f"{text.rstrip()}\n")

    def tracking_options(self) -> list[str]:
        return ["--tracking-uri", self.ground.tracking.uri] if self.plan.setting.tracking == "server" else []


@contextlib.contextmanager
def changed_environment(environment: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
