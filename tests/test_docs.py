"""What the documents name exists: links, commands, keys, examples, pins. Checks are functions, which see planted faults."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest

from orchestrator.commands.parser import make_parser
from orchestrator.errors import UserError
from orchestrator.spec.guide_tables import guide_tables, with_tables
from orchestrator.spec.json_schema import json_schema
from orchestrator.spec.loader import load_spec
from orchestrator.spec.presets import preset_names
from orchestrator.spec.yaml_document import parse_value
from tests import ROOT

README = ROOT / "README.md"
GUIDE = sorted((ROOT / "orchestrator/guide").glob("*.md"))
DOCUMENTS = [README, ROOT / "cluster/README.md", *GUIDE]
PRESETS = sorted((ROOT / "orchestrator/sweeps").rglob("*.yaml"))
OLD_WORDS = (
    "ready sweep",
    "way out",
    "ways out",
    "trunk",
    "trunks",
    "told",
    "moves no bit",
    "is in no key",
    "dense line",
    "small job",
)
RESULT_KEYS = "Keys that decide a trial's numbers"
PLACEHOLDER = re.compile(r"[A-Z]+")  # of a command, as in `drive-sweep COMMAND --help`


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The text without fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def between(text: str, marker: str) -> str:
    """What stands between <!-- marker --> and <!-- /marker -->."""
    (content,) = re.findall(rf"<!-- {marker} -->\n(.*?)<!-- /{marker} -->", text, re.DOTALL)
    return str(content)


def rows(text: str) -> list[list[str]]:
    """Cells of every row of the tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for number, row in enumerate(cells) if not is_rule(row) and not is_rule(next(iter(cells[number + 1 :]), []))]


def is_rule(row: list[str]) -> bool:
    return bool(row) and all(re.fullmatch(":?-+:?", cell) for cell in row)


def code_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, folder: Path) -> list[str]:
    """Relative links whose file, or whose heading in it, does not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = folder / path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text() if path else text)):
            broken.append(link)
    return broken


def command_lines(text: str) -> list[str]:
    """Arguments of every `drive-sweep` in blocks of commands and in inline code."""
    blocks = re.findall(r"^    .*?\bdrive-sweep ([a-z].*?)(?: +#.*)?$", prose(text), re.MULTILINE)
    return blocks + [code.removeprefix("drive-sweep ") for code in code_in(prose(text)) if code.startswith("drive-sweep ")]


def commands() -> dict[str, argparse.ArgumentParser]:
    (choices,) = (action.choices for action in make_parser()._actions if action.dest == "command")
    return dict(choices or {})


def refused_commands(lines: list[str]) -> list[str]:
    """Lines that the command line's parser does not take; a command's name alone may stand for the command."""
    refused = []
    for line in lines:
        words = shlex.split(re.split(r" (?:>|&&|\\?\|) ", line)[0])
        if words[0] in commands() and (len(words) == 1 or words[1:] == ["--fix"]):
            continue
        if PLACEHOLDER.fullmatch(words[0]) and words[1:] == ["--help"]:
            continue
        try:
            make_parser().parse_args(words)
        except SystemExit:
            refused.append(line)
    return refused


def refused_sweeps(blocks: list[str], folder: Path) -> list[str]:
    """Why whole sweep files do not load."""
    refused = []
    for block in blocks:
        (folder / "sweep.yaml").write_text(block)
        try:
            load_spec(str(folder / "sweep.yaml"))
        except UserError as error:
            refused.append(str(error))
    return refused


def unresolved_imports(blocks: list[str]) -> list[str]:
    """Imports of Python examples that do not exist. Raises SyntaxError for what is no Python."""
    missing = []
    for block in blocks:
        compile(block, "example", "exec")
        for node in ast.walk(ast.parse(block)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            missing += [name for name in modules if not exists(name)]
            if isinstance(node, ast.ImportFrom):
                missing += [f"{node.module}.{one.name}" for one in node.names if not exists(str(node.module), one.name)]
    return missing


def exists(module: str, name: str = "") -> bool:
    try:
        imported = importlib.import_module(module)
    except ImportError:
        return False
    return not name or hasattr(imported, name)


def old_words(text: str) -> list[str]:
    return [word for word in OLD_WORDS if re.search(rf"\b{word}s?\b", " ".join(text.split()), re.IGNORECASE)]


def schema_defaults(schema: dict[str, Any], part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key of the sweep file -> its default; "required" where it has none."""
    defaults: dict[str, Any] = {}
    for name, field in part["properties"].items():
        if reference := next((one["$ref"] for one in (field, *field.get("anyOf", ())) if "$ref" in one), None):
            defaults |= schema_defaults(schema, schema["$defs"][reference.rpartition("/")[2]], f"{prefix}{name}.")
        elif f"{prefix}{name}" != "dataset.module":
            defaults[prefix + name] = field.get("default", "required")
    return defaults


@every_document
def test_links_and_anchors_exist(document: Path) -> None:
    assert broken_links(document.read_text(), document.parent) == []


@every_document
def test_every_command_line_parses(document: Path) -> None:
    assert refused_commands(command_lines(document.read_text())) == []


def test_the_documents_have_commands() -> None:
    assert len(command_lines(README.read_text())) > 10
    assert sum(len(command_lines(document.read_text())) for document in DOCUMENTS) > 60


@every_document
def test_sweep_files_load(document: Path, tmp_path: Path) -> None:
    blocks = fenced(document.read_text(), "yaml")
    assert all(block.startswith("name: ") for block in blocks), "an example is a whole sweep file"
    assert refused_sweeps(blocks, tmp_path) == []


def test_the_documents_have_sweep_files() -> None:
    assert len(fenced(README.read_text(), "yaml")) == 1
    assert sum(len(fenced(document.read_text(), "yaml")) for document in GUIDE) > 4


@every_document
def test_python_examples_compile_and_their_imports_exist(document: Path) -> None:
    assert unresolved_imports(fenced(document.read_text(), "python")) == []


@pytest.mark.parametrize("document", [*DOCUMENTS, *PRESETS], ids=name_of)
def test_no_old_words(document: Path) -> None:
    assert old_words(document.read_text()) == []


def test_readme_is_short_and_has_a_short_glossary() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 210
    glossary = rows(text.partition("## Glossary")[2])
    assert 10 < len(glossary) <= 20


def test_readme_names_every_command_and_no_other() -> None:
    table = rows(between(README.read_text(), "commands"))
    assert {code_in(row[0])[0].split()[0] for row in table} == set(commands())
    assert len(table) == len(commands())


def test_readme_names_every_topic_of_the_guide() -> None:
    links = re.findall(r"^\| \[([\w-]+)\]\(orchestrator/guide/([\w-]+)\.md\)", README.read_text(), re.MULTILINE)
    assert sorted(links) == [(file.stem, file.stem) for file in GUIDE]


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text()
        assert set(re.findall(r"(?:^    |`)make ([a-z]+)", text, re.MULTILINE)) <= targets, name_of(document)


@pytest.mark.parametrize("topic", GUIDE, ids=name_of)
def test_a_topic_is_a_heading_and_a_page(topic: Path) -> None:
    lines = topic.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert 40 <= len(lines) <= 200


@pytest.mark.parametrize("topic", guide_tables())
def test_tables_of_the_guide_come_from_the_code(topic: str) -> None:
    page = (ROOT / f"orchestrator/guide/{topic}.md").read_text()
    expected = with_tables(page, guide_tables()[topic])
    assert page == expected, "`python -m orchestrator.spec.guide_tables` writes the tables"
    assert all(f"<!-- {name} -->\n{table}<!-- /{name} -->" in expected for name, table in guide_tables()[topic].items())


def test_the_custom_method_of_the_guide_runs(tmp_path: Path) -> None:
    """The example of the guide, as it stands there, in an empty folder."""
    sweep, module = (
        textwrap.dedent(re.search(rf"```{language}\n(.*?)```", section("methods", "Custom methods"), re.S)[1])  # type: ignore[index]
        for language in ("yaml", "python")
    )
    (tmp_path / "myscores.py").write_text(module)
    (tmp_path / "sweep.yaml").write_text(sweep)
    command = [sys.executable, "-m", "orchestrator.cli", "trial", "sweep.yaml", "--index", "4", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["config"]["method"] == "module:myscores.taylor"
    assert result["config"]["options"] == {"power": 2}
    assert result["kept_weights"] == 1_525


def section(topic: str, heading: str) -> str:
    """What stands under a heading of the guide."""
    return (ROOT / f"orchestrator/guide/{topic}.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_guide_has_every_key_with_its_default() -> None:
    schema = json_schema()
    tables = (
        section("sweep-file", RESULT_KEYS),
        section("sweep-file", "Keys that do not change results"),
        section("search", "Keys"),
        section("methods", "Options"),
    )
    documented = {code_in(key)[0]: default for table in tables for key, default, _ in rows(table)}
    defaults = schema_defaults(schema, schema)
    assert documented.keys() == defaults.keys()
    for key, default in defaults.items():
        shown = parse_value(code_in(documented[key])[0], key) if code_in(documented[key]) else documented[key]
        expected = default[0] if key == "method" else default
        assert shown == ("" if expected is None or key == "search" else expected), key


def test_the_guide_says_which_keys_cannot_be_searched() -> None:
    table = {code_in(key)[0]: meaning for key, _, meaning in rows(section("sweep-file", RESULT_KEYS))}
    searched = {key for key, meaning in table.items() if not meaning.endswith("one per sweep")} - {"method"}
    assert searched == table.keys() & json_schema()["properties"]["search"]["properties"].keys()


def test_the_guide_names_every_preset() -> None:
    assert sorted(name for row in rows(section("sweep-file", "Presets")) for name in code_in(row[0])) == preset_names()


def test_every_dependency_is_pinned_and_the_pins_name_no_address() -> None:
    pins = (ROOT / "requirements.txt").read_text()
    assert "//" not in pins
    pinned = {normal(line.split("==")[0]) for line in pins.splitlines() if "==" in line}
    needed = {normal(requirement) for requirement in requires("drive-sweep") or ()}
    assert needed <= pinned


def normal(requirement: str) -> str:
    """The normalised name of a distribution."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;! ]", requirement)[0]).lower()


def test_planted_faults_are_seen(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A title: of two, words\n")
    links = "[a](there.md) [b](there.md#a-title-of-two-words) [c](gone.md) [d](there.md#gone) [e](#gone) [f](https://x.org)"
    assert broken_links(links, tmp_path) == ["gone.md", "there.md#gone", "#gone"]

    text = textwrap.dedent("""
        Write `drive-sweep ui` or `drive-sweep plam digits`.

            X=1 drive-sweep run digits --quite   # a comment
            drive-sweep schema > file
        """)
    assert refused_commands(command_lines(text)) == ["run digits --quite", "plam digits"]

    text = "```yaml\nname: x\nmodel: resnet21\n```\n\n```python\nfrom trainables import nothing\nimport no_such_module\n```\n"
    assert len(refused_sweeps(fenced(text, "yaml"), tmp_path)) == 1
    assert unresolved_imports(fenced(text, "python")) == ["trainables.nothing", "no_such_module"]

    assert old_words("Mistakes are told with the way\nout.") == ["way out", "told"]
    assert rows("| a | b |\n|---|---|\n| `c\\|d` | e |\n") == [["`c\\|d`", "e"]]
    assert schema_defaults(json_schema(), json_schema())["training.gamma"] == 0.1


def test_the_top_level_holds_what_it_must_and_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    folders = {"orchestrator", "trainables", "tests", "cluster"}
    files = {"pyproject.toml", "README.md", "Makefile", "LICENSE", "requirements.txt"}
    assert {name for name in top if not name.startswith(".")} == folders | files
