"""The sections in the order of their importance: those at the end are left out when the time is over."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the report, measured alone.

    Attributes:
        name: that of its module in sections/, whose function `measure` yields the rows.
        shows: one line for the report.
        seconds: that it should take on a GPU; it is ended after half as much again.
    """

    name: str
    shows: str
    seconds: float


SECTIONS = (
    Section(name="checks", shows="the guarantees that tests hold on a CPU", seconds=60),
    Section(name="device_and_cpu", shows="the same trials on this device and on a CPU", seconds=35),
    Section(
        name="determinism",
        shows="resumed and shared trials against plain ones, and what deterministic kernels cost",
        seconds=45,
    ),
    Section(
        name="throughput",
        shows="images per second of training beside a plain loop, and the share of the matmul rate",
        seconds=150,
    ),
    Section(name="pruning_rounds", shows="100 pruning rounds over 100 forward and backward passes", seconds=35),
    Section(name="selection", shows="ways to find the threshold of the kept weights, by their number", seconds=20),
    Section(
        name="side_by_side", shows="trials that share the device: total throughput, memory predicted and measured", seconds=60
    ),
    Section(
        name="out_of_memory", shows="a trial without enough memory is classed as such, and the process goes on", seconds=15
    ),
    Section(name="several_workers", shows="one trial by two processes, one of which is lost", seconds=40),
    Section(name="precision", shows="the check of bf16 before a sweep, for networks and for a known bad case", seconds=30),
    Section(name="two_four", shows="2:4 sparse layers of a trained model against dense ones", seconds=25),
    Section(name="layer_timings", shows="a timing table, as `drive-sweep timings --gpu` measures it", seconds=25),
)
BRIEF_SECONDS = 6.0  # of a section in the shortened form
