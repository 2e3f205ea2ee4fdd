"""What the files of cluster/ name exists: commands and their options, paths, versions; their scripts pass shellcheck."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from orchestrator.commands.parser import make_parser
from tests import ROOT
from tests.support.cluster_files import FILES, LAUNCHERS, PINS, python_version, read, texts


def commands() -> list[tuple[str, str]]:
    """Every call of drive-sweep in cluster/: file, line."""
    calls = []
    for file in FILES:
        text = file.read_text().replace("\\\n", " ")
        if file.suffix == ".yaml":
            text = "\n".join(" ".join(one.split()) for one in texts(yaml.safe_load(text))) + "\n" + comments(text)
        for line in text.splitlines():
            for call in re.findall(r"(?:^|[\s`;\"/])drive-sweep ([a-z]+ [^`;|#]*|[a-z]+(?=`))", line):
                verb = call.split()[0]
                if verb in ("run", "submit", "list", "status", "logs", "stop", "report", "resume", "doctor", "sync", "plan"):
                    calls.append((file.name, call.strip()))
    return calls


def comments(text: str) -> str:
    return "\n".join(line.split("#", 1)[1] for line in text.splitlines() if "#" in line)


def known_commands() -> set[str]:
    (action,) = (action for action in make_parser()._actions if action.dest == "command")
    return set(action.choices or ())


def test_every_command_exists_with_its_options() -> None:
    calls = commands()
    assert len(calls) >= 12, calls
    for file, call in calls:
        words = shlex.split(call)
        assert words[0] in known_commands(), f"{file}: no command {call!r}"
        if len(words) > 1:
            try:
                make_parser().parse_args(words)
            except SystemExit:
                pytest.fail(f"{file}: {call!r} is refused")


def test_every_path_exists() -> None:
    for file in [*FILES, ROOT / "README.md"]:
        for path in re.findall(r"(?<![\w/.-])(?:cluster|tests|orchestrator|trainables)/[\w./-]*\w", file.read_text()):
            if path not in ("cluster/.env",):
                assert (ROOT / path).exists(), f"{file.name}: {path}"


def test_every_version_of_a_package_is_that_of_the_pins() -> None:
    for file in FILES:
        text = file.read_text()
        for name, version in re.findall(r"\b(ray|mlflow|torch|psycopg|boto3|uvloop)(?:==|:| )v?(\d+\.\d+(?:\.\d+)?)\b", text):
            assert PINS[name].startswith(version), f"{file.name}: {name} {version}, pinned is {PINS[name]}"
        assert all(version == python_version() for version in re.findall(r"[Pp]ython[ :](3\.\d+)", text)), file.name


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    scripts = [file for file in FILES if file.suffix in (".sh", ".sbatch")]
    assert len(scripts) >= 2
    for name in LAUNCHERS:
        document = read(f"ray/{name}.yaml")
        for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
            script = tmp_path / f"{name}.{key}.sh"
            script.write_text("#!/bin/bash\n" + "\n".join(document[key]) + "\n")
            scripts.append(script)
    # SC1090: mlflow.env is the user's own.
    done = subprocess.run(["shellcheck", "--exclude=SC1090", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
