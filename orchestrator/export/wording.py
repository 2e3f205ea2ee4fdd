"""Lines about an exported model that the command prints and the model card repeats."""

from __future__ import annotations

from typing import Any

from trainables.wording import counted

NOTE = (
    "Most runtimes multiply by zeros too: unstructured sparsity makes a model smaller to store, and seldom faster. It may be "
    "otherwise on another machine, in another runtime or for another network."
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


def latency_rows(facts: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Images in a batch, model, its time, and how much faster the exported one is; a row for each model."""
    rows = []
    for one in facts["latency"]:
        for model in one["models"]:
            time = f"{model['median']:.3g} ms ({model['low']:.3g} to {model['high']:.3g})"
            is_exported = model is one["models"][-1]
            rows.append((counted(one["batch"], "image"), model["label"], time, _speedup(one) if is_exported else ""))
    return rows


def _speedup(latency: dict[str, Any]) -> str:
    median, low, high = latency["speedup"]
    return f"{latency['verdict']}: {median:.2f} times as fast as dense ({low:.2f} to {high:.2f})"


def latency_head(facts: dict[str, Any]) -> str:
    """How it was measured."""
    rounds = " and ".join(f"{one['rounds']:,}" for one in facts["latency"])
    return (
        f"{facts['processor']}, 1 thread: median and middle 80 % of {rounds} calls of each model in turns; dense is the same "
        "network with no weight zero"
    )


def latency_notes(facts: dict[str, Any]) -> list[str]:
    return [*filter(None, [facts["note"]]), NOTE]


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
