"""A page of a sweep whose every text is an attack, in a real browser: nothing of it runs, and nothing is asked of a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from orchestrator.page.page import html_page
from orchestrator.recommendation.recommendation import Recommendation
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.layout import trial_file
from orchestrator.storage.local import LocalStorage
from tests.support.browser import needs_chromium, open_page, running_chromium
from trainables.records.file_names import ERROR

pytestmark = [needs_chromium, pytest.mark.process]

ATTACK = (
    "</script><script>window.ran=1</script></style></pre></title><img src=x onerror=window.ran=1>"
    "\u2028\udc80\x1b[2J\x00'\"`${window.ran=1}{{7*7}}<a href='javascript:window.ran=1'>x</a>]]>"
)
FOLDER = ATTACK.replace("/", "_").replace("\x00", "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


def hostile(value: Any, inside: str = "") -> Any:
    """The value of a record with an attack behind every text that is shown; keys of tables in the code stay."""
    if isinstance(value, dict):
        return {name: field if name == "config" else hostile(field, name) for name, field in value.items()}
    if isinstance(value, list):
        return [hostile(item, inside) for item in value]
    return value + ATTACK if isinstance(value, str) and inside not in ("kind", "type") else value


def of_attack_group(one: Recommendation) -> Recommendation:
    group = replace(one.results.group, name=one.name + ATTACK)
    return replace(one, results=replace(one.results, group=group))


def attacked(results: SweepResults, copy: Path) -> SweepResults:
    """The results with attacks for names of the sweep, trials and layers, errors, devices, revisions and damage."""
    storage = LocalStorage(str(shutil.copytree(results.folder.storage.root, copy)))
    trials = {
        key: replace(trial, name=trial.name + ATTACK, error=trial.error and trial.error + ATTACK, mlflow_run_id=ATTACK)
        for key, trial in results.state.trials.items()
    }
    for key, trial in trials.items():
        if trial.state == "failed":
            storage.write_json(
                trial_file(key, ERROR), {"traceback": ATTACK, "kind": "code", "attempt": 1, "message": ATTACK, "time": 10**12}
            )
    storage.write(f"sweeps/{FOLDER}/sweep.yaml", ATTACK.encode(errors="replace"))
    return replace(
        results,
        folder=SweepFolder(storage, FOLDER),
        state=replace(results.state, trials=trials, experiment_id=ATTACK, sweep=ATTACK),
        records={key: hostile(record) for key, record in results.records.items()},
        damage={"0" * 16: ATTACK},
        recommendations=tuple(map(of_attack_group, results.recommendations)),
    )


def test_no_text_of_a_sweep_runs(two_methods: SweepResults, browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html_page(attacked(two_methods, tmp_path / "runs")))
    opened = open_page(browser, file.as_uri())
    page = opened.page
    for folded in page.locator("summary").all():
        if folded.is_visible():
            folded.click()
    for mark in page.locator("svg.marks path[aria-roledescription]").all()[:200:20]:  # with texts in their tooltips
        if mark.is_visible():
            mark.hover(force=True)
    assert page.evaluate("window.ran") is None
    assert page.evaluate("[...document.scripts].map(one => one.id || one.type)") == ["figures", "", ""]
    assert page.locator("img, iframe, object, embed").count() == 0
    links = [str(link.get_attribute("href")) for link in page.locator("a[href]").all()]
    assert links
    assert not [link for link in links if not link.startswith(("#", "http://127.0.0.1:5000/"))]
    assert opened.errors == []
    assert opened.requests == [file.as_uri()]
    shown = page.locator("h1").inner_text()
    assert shown.startswith("<_script><script>")
