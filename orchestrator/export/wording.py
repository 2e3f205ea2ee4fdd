"""Lines about an exported model that the command prints and the model card repeats."""

from __future__ import annotations

from typing import Any

from trainables.wording import counted

NOTE = (
    "Most runtimes multiply by zeros too: unstructured sparsity makes a model smaller to store, and seldom faster. Another "
    "machine, runtime or network may differ."
)


def check_line(facts: dict[str, Any]) -> str:
    """How the exported model compares with the trial's."""
    check = facts["check"]
    difference = (
        "equal bits"
        if check["max_difference"] == 0
        else f"largest difference of a score {check['max_difference']:.2g} (accepted: {check['accepted']:.2g})"
    )
    line = f"{check['what']}: {difference}, {check['equal_decisions']:,} of {check['images']:,} decisions equal"
    if check["correct"] is None:
        return line
    recorded = facts["accuracy"]["test/accuracy"]["trial"] if check["whole_test_set"] else None
    as_recorded = "" if recorded is None else f"; the trial recorded {percent(recorded)}"
    return f"{line}, {check['correct']:,} right ({percent(check['correct'] / check['images'])}{as_recorded})"


def latency_lines(facts: dict[str, Any]) -> list[str]:
    """One line for each size of batch, and what is to be said about them; empty if nothing was measured."""
    if not facts["latency"]:
        return []
    lines = []
    for one in facts["latency"]:
        times = ", ".join(f"{each['label']} {_milliseconds(each)}" for each in one["models"])
        median, low, high = one["speedup"]
        beside = one["models"][-2]["label"].partition(", ")[2]
        ratio = f"{median:.2f} times as fast as dense ({low:.2f} to {high:.2f}): {one['verdict']} in {beside}"
        lines.append(f"{counted(one['batch'], 'image')}: {times}; {ratio}")
    return [*lines, *filter(None, [facts["note"]]), NOTE]


def _milliseconds(measured: dict[str, Any]) -> str:
    return f"{measured['median']:.3g} ms ({measured['low']:.3g} to {measured['high']:.3g})"


def accuracy_text(facts: dict[str, Any], metric: str) -> str:
    """That of the trial, and over the seeds of its configuration."""
    accuracy = facts["accuracy"][metric]
    if accuracy["trial"] is None:
        return "not measured"
    text = percent(accuracy["trial"])
    if accuracy["seeds"] is None:
        return text
    mean, deviation, seeds = accuracy["seeds"]
    if deviation is None:
        return f"{text} (the configuration has one seed)"
    return f"{text} (over {seeds} seeds {percent(mean)} ± {100 * deviation:.2f})"


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def size(number: int) -> str:
    """Bytes for people."""
    if number < 10_000:
        return f"{number:,} bytes"
    return f"{number / 1000:,.0f} kB" if number < 10_000_000 else f"{number / 1_000_000:,.1f} MB"
