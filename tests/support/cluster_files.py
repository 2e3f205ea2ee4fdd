"""The files of cluster/, and what tests read from them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import yaml

from tests import ROOT

CLUSTER = ROOT / "cluster"
LAUNCHERS = ("onprem", "aws", "gcp")
PINS = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\n]+)", (ROOT / "requirements.txt").read_text(), re.M))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"drive-sweep:{PROJECT['version']}"
FILES = sorted(
    file for file in CLUSTER.rglob("*") if file.is_file() and "__pycache__" not in file.parts and file.name != ".env"
)


def read(path: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CLUSTER / path).read_text())
    return document


def texts(node: Any) -> Iterator[str]:
    """All text of a YAML document."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from (*texts(key), *texts(value))
    elif isinstance(node, list):
        for value in node:
            yield from texts(value)
    elif isinstance(node, str):
        yield node


def python_version() -> str:
    """The lowest that the project supports, which clusters and the image use."""
    match = re.match(r">=(\d+\.\d+)", PROJECT["requires-python"])
    assert match
    return match[1]


def blocks(path: str) -> list[str]:
    """Indented or fenced commands of a README."""
    text = (CLUSTER / path).read_text()
    return re.findall(r"(?:^    .*\n(?:^\n(?=    ))?)+", text, re.M)
