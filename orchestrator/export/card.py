"""The model card, README.md of an export: what the model is, how good it is, how it is loaded, and what was checked."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.export.wording import accuracy_text, check_line, latency_head, latency_notes, latency_rows, size

CODE_MARK = "```python"  # the code between this and the next ``` runs as it stands, in the folder of the card


def model_card(facts: dict[str, Any]) -> str:
    """The text."""
    sections = [
        _summary(facts),
        "## Load it\n\n" + _loading(facts),
        "## Accuracy\n\n" + _accuracy(facts),
        "## Model\n\n" + _table(_model_rows(facts)),
        "## Configuration of the trial\n\n" + _table(_configuration_rows(facts)),
        "## Check\n\n" + _check(facts),
        "## Latency\n\n" + _latency(facts),
        "## Files\n\n" + _files(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(facts: dict[str, Any]) -> str:
    network, sparsity = facts["network"], facts["sparsity"]
    kept = f"{sparsity['kept']:,} of {sparsity['prunable']:,} prunable weights are left"
    title = f"# {network['name']} on {facts['data']['name']}, sparsity {sparsity['achieved']:.4g}"
    what = (
        f"An image classifier with {network['num_classes']} classes: {kept}. It is trial `{facts['trial']}` "
        f"(`{facts['name']}`) of the drive-sweep sweep `{facts['sweep']}`, {facts['reason']}."
    )
    return f"{title}\n\n{what}\n\nLicence: {facts['license']}"


def _loading(facts: dict[str, Any]) -> str:
    network, packages = facts["network"], facts["versions"]["exported by"]
    shape = ", ".join(str(one) for one in network["image_shape"])
    needed = [name for name in packages if name not in ("drive-sweep", "python")]
    needed = [name for name in needed if name != "torch"] if facts["format"] == "onnx" else needed
    versions = ", ".join(f"{name} {packages[name]}" for name in needed)
    return (
        f"It needs {' and '.join(needed)}, and nothing of drive-sweep. It was written and read with {versions}. "
        f"In the folder of this file:\n\n{CODE_MARK}\n{facts['code']}```\n\n"
        f"Images are float32 of shape (N, {shape}), with values in 0..1, **not normalised**: the model subtracts the mean "
        f"{_numbers(network['mean'])} and divides by the standard deviation {_numbers(network['std'])} of each channel itself. "
        "Scores are logits, without softmax."
    )


def _accuracy(facts: dict[str, Any]) -> str:
    rows = [("validation", accuracy_text(facts, "val/accuracy")), ("test", accuracy_text(facts, "test/accuracy"))]
    text = _table(rows)
    if facts["accuracy"]["val/accuracy"]["seeds"] is not None and "by validation accuracy" in facts["reason"]:
        text += (
            "\n\nThis seed was chosen for its validation accuracy, which is therefore a little too high for it. To compare "
            "configurations, quote the mean over seeds."
        )
    if facts["recommendation"]:
        text += f"\n\nThe recommendation for this configuration: {facts['recommendation']}."
    return text


def _model_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    network, sparsity, cost = facts["network"], facts["sparsity"], facts["multiply_adds"]
    rows = [
        ("network", network["name"]),
        ("image", " x ".join(str(one) for one in network["image_shape"])),
        ("classes", str(network["num_classes"])),
        ("data", f"{facts['data']['name']}, digest `{facts['data']['digest']}`"),
        ("pruned by", facts["method"]),
        ("sparsity", f"{sparsity['achieved']:.4f} (requested: {sparsity['requested']!r})"),
        ("kept weights", f"{sparsity['kept']:,} of {sparsity['prunable']:,} prunable ones"),
        ("parameters", f"{_count(sparsity['kept_parameters'])} of {_count(sparsity['parameters'])} are not pruned"),
        ("multiply-adds", f"{_count(cost['kept'])} without zeros, {_count(cost['dense'])} dense"),
    ]
    if sparsity["emptied_layers"]:
        rows.append(("layers without any weight", ", ".join(sparsity["emptied_layers"])))
    if network["source_sha256"]:
        rows.append(("source of the network", f"SHA-256 `{network['source_sha256']}`"))
    versions = facts["versions"]
    return [
        *rows,
        ("seed", str(facts["seed"])),
        ("trial key", f"`{facts['trial']}`"),
        ("model_sha256", f"`{facts['model_sha256']}`"),
        ("trained by", _versions(versions["trained by"])),
        ("exported by", _versions(versions["exported by"])),
        ("licence", facts["license"]),
    ]


def _configuration_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(f"`{key}`", f"`{json.dumps(value)}`") for key, value in facts["config"].items() if value is not None]


def _check(facts: dict[str, Any]) -> str:
    return (
        f"The code above was run in a process without drive-sweep, beside the trial's own model. {_sentence(check_line(facts))}"
    )


def _latency(facts: dict[str, Any]) -> str:
    if not facts["latency"]:
        return "Not measured."
    table = _table(latency_rows(facts), ("batch", "model", "time", "against dense in the same runtime"))
    notes = " ".join(latency_notes(facts))
    return f"{_sentence(latency_head(facts))}\n\n{table}\n\n{notes}"


def _files(facts: dict[str, Any]) -> str:
    rows = [(f"`{one['name']}`", size(one["bytes"]), f"`{one['sha256']}`") for one in facts["files"]]
    table = _table(rows, ("file", "size", "SHA-256"))
    return f"{_sentence(facts['description'])}\n\n{table}\n\nThe dense weights alone are {size(facts['dense_bytes'])}."


def _table(rows: list[Any], head: tuple[str, ...] = ("", "")) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _count(number: int | float | None) -> str:
    return "not known" if number is None else f"{int(number):,}"


def _versions(versions: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value or 'not known'}" for name, value in versions.items())


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
