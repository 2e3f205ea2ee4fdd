"""Checks the pinned packages against published advisories, by pip-audit: `make audit`, or python -m tests.audit.

Exit code 0: all were checked and none has an advisory; 1: some have; 3: some could not be checked, so nothing is known of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import ROOT

SOURCES = ("pypi", "osv")  # pip-audit's names of the sources of advisories
UV = Path(sys.executable).with_name("uv")


def verdict(answer: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit code and lines for an answer of pip-audit."""
    packages = answer["dependencies"]
    unchecked = [one["name"] for one in packages if "skip_reason" in one]
    affected = [one for one in packages if one.get("vulns")]
    lines = [
        f"{len(packages) - len(unchecked)} of {len(packages)} pinned packages were checked, {len(affected)} have advisories"
    ]
    for one in affected:
        for advisory in one["vulns"]:
            fixed = ", ".join(advisory["fix_versions"]) or "no version"
            lines.append(f"{one['name']} {one['version']}: {advisory['id']}, fixed in {fixed}")
    if unchecked:
        lines.append(f"not known: {len(unchecked)} packages, such as {unchecked[0]}")
    return 1 if affected else 3 if unchecked else 0, lines


def ask(source: str) -> dict[str, Any] | None:
    """The answer of pip-audit by one source; None if it gave none, which is said with its last line."""
    tool = [str(UV), "tool", "run", "pip-audit"]
    command = [*tool, "--no-deps", "--disable-pip", "--format=json", f"--vulnerability-service={source}", "--timeout=15"]
    done = subprocess.run([*command, f"--requirement={ROOT / 'requirements.txt'}"], capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        print(f"{source}: no answer: {(done.stderr.strip().splitlines() or ['no output'])[-1]:.200}")
        return None
    return answer


def main() -> int:
    for source in SOURCES:
        answer = ask(source)
        if answer is None:
            continue
        code, lines = verdict(answer)
        print(f"{source}: " + "\n  ".join(lines))
        if any("skip_reason" not in one for one in answer["dependencies"]):
            return code
    print("no source of advisories could be reached: nothing is known of the pinned packages")
    return 3


if __name__ == "__main__":
    sys.exit(main())
