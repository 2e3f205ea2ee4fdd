"""What a round is to be: where it takes place, and which faults meet it when; all of it follows from seed and number."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

from tests.chaos.faults.fault import Fault, Setting
from tests.chaos.faults.table import FAMILIES, FAULTS

MOST_FAULTS = 3
BY_CLOCK = 0.25  # share of moments that are times, since little is written while a driver starts and ends
LONGEST_DELAY_S = 0.3
JOINED = 0.6  # share of rounds on the cluster that is there already; a Ray of its own takes seconds


@dataclass(frozen=True, kw_only=True)
class Moment:
    """After so many lines of the events file and seconds; or without lines, so many seconds after the first start."""

    events: int
    seconds: float

    def __str__(self) -> str:
        return f"event {self.events} + {self.seconds:.1f} s" if self.events else f"{self.seconds:.1f} s"


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """One round before it begins; `faults` in the order of their moments."""

    seed: int
    number: int
    setting: Setting
    faults: list[tuple[Moment, Fault]]


def plan_round(seed: int, number: int, *, storages: list[str], events: int, seconds: float) -> RoundPlan:
    """Draws a round.

    Args:
        events: lines that an undisturbed sweep writes.
        seconds: that it takes.
    """
    draw = random.Random(f"{seed}/{number}")
    settings = [
        Setting(storage=storage, ray=ray, tracking=tracking)
        for storage, ray, tracking in product(storages, ("joined", "local"), ("server", "database"))
        if storage == "folder" or tracking == "server"
    ]
    first, count = _turn(seed, number, settings), draw.randint(0, MOST_FAULTS - 1)
    while True:
        faults = [first, *(draw.choice(FAMILIES[draw.choice(list(FAMILIES))]) for _ in range(count))]
        fitting = [setting for setting in settings if all(fault.fits(setting) for fault in faults)]
        if fitting:
            break
    draw.shuffle(faults)
    moments = sorted((_moment(draw, events, seconds) for _ in faults), key=lambda moment: (moment.events, moment.seconds))
    weights = [JOINED if setting.ray == "joined" else 1 - JOINED for setting in fitting]
    setting = draw.choices(fitting, weights)[0]
    return RoundPlan(seed=seed, number=number, setting=setting, faults=list(zip(moments, faults, strict=True)))


def _turn(seed: int, number: int, settings: list[Setting]) -> Fault:
    """The fault that every round of this number has: all take turns, in an order of their own each time."""
    kinds = [fault for fault in FAULTS.values() if any(fault.fits(setting) for setting in settings)]
    turn, place = divmod(number, len(kinds))
    return random.Random(f"{seed}/turn {turn}").sample(kinds, len(kinds))[place]


def _moment(draw: random.Random, events: int, seconds: float) -> Moment:
    if draw.random() < BY_CLOCK:
        return Moment(events=0, seconds=draw.uniform(0.3, seconds))
    return Moment(events=draw.randint(1, events), seconds=draw.uniform(0, LONGEST_DELAY_S))
