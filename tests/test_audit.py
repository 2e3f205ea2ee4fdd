"""What is said of pip-audit's answers: silence of a source is never "no advisories"."""

from __future__ import annotations

from tests.audit import verdict

CLEAN = {"name": "a", "version": "1", "vulns": []}
AFFECTED = {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"], "aliases": [], "description": ""}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def test_verdicts() -> None:
    assert verdict({"dependencies": [CLEAN]}) == (0, ["1 of 1 pinned packages were checked, 0 have advisories"])
    code, lines = verdict({"dependencies": [CLEAN, AFFECTED, SKIPPED]})
    assert code == 1
    assert lines[0] == "2 of 3 pinned packages were checked, 1 have advisories"
    assert lines[1:] == ["b 2: X-1, fixed in 3", "not known: 1 packages, such as c"]
    assert verdict({"dependencies": [CLEAN, SKIPPED]})[0] == verdict({"dependencies": [SKIPPED]})[0] == 3
