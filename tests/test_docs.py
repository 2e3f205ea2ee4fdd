"""What the documents say exists: links, commands, the sweep file of the README, pins."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import requires
from pathlib import Path

import pytest

from orchestrator.cli import _parser
from orchestrator.spec.loader import load_spec
from tests import ROOT

DOCUMENTS = ["README.md", "cluster/README.md"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    missing = [link for link in links if not (ROOT / document).parent.joinpath(link).exists()]
    assert missing == []


def test_the_sweep_file_of_the_readme_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    file = tmp_path / "sweep.yaml"
    file.write_text(block)
    assert load_spec(str(file)).name == "cifar10-resnet20"


def test_the_readme_names_every_command_and_no_other() -> None:
    table = (ROOT / "README.md").read_text().partition("## Command line")[2].partition("Everywhere:")[0]
    told = set()
    for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        told |= {name.split()[0] for name in re.findall(r"`([^`]+)`", cell)}
    (commands,) = (action.choices for action in _parser()._actions if action.dest == "command")
    assert commands is not None
    assert told == set(commands)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_parses(document: str) -> None:
    text = (ROOT / document).read_text()
    lines = re.findall(r"^    .*?\bdrive-sweep (.*?)(?: +#.*)?$", text, re.MULTILINE) + re.findall(
        r"`drive-sweep ([^`]+)`", text
    )
    assert len(lines) > (9 if document == "README.md" else 3)
    for line in lines:
        words = shlex.split(line.partition(" > ")[0].partition(" && ")[0])
        if len(words) > 1 and words[0] in _parser()._actions[-1].choices:  # type: ignore[operator]
            _parser().parse_args(words)


def test_every_dependency_is_pinned_and_the_pins_name_no_address() -> None:
    pins = (ROOT / "requirements.txt").read_text()
    assert "//" not in pins
    pinned = {normal(line.split("==")[0]) for line in pins.splitlines() if "==" in line}
    needed = {normal(requirement) for requirement in requires("drive-sweep") or ()}
    assert needed <= pinned


def normal(requirement: str) -> str:
    """The normalised name of a distribution."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;! ]", requirement)[0]).lower()
