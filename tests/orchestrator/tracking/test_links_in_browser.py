"""The links that `ui --print-links` prints, opened in a browser: each shows what it promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.tracking.links import links
from orchestrator.tracking.sweep_summary import RecommendedTrial, SweepSummary
from orchestrator.tracking.ui_server import serve
from tests.support.browser import needs_chromium, running_chromium
from tests.support.mlflow_stores import new_target
from tests.support.tracked_sweep import SWEEP, WARMUP, TrackedSweep, item, open_sync

if TYPE_CHECKING:
    from playwright.sync_api import Page

TIMEOUT_MS = 60_000
SENTENCE = "s0.9: warm up 2 epochs"
SETTINGS = {  # name of a trial -> its params
    "w02-r0": {"warmup_epochs": "2", "prune_iterations": "3", "seed": "0"},
    "w02-i001-r0": {"warmup_epochs": "2", "prune_iterations": "1", "seed": "0"},
    "w00-s0.9-r1": {"warmup_epochs": "0", "prune_iterations": "3", "seed": "1"},
}


def open_and_expect(page: Page, url: str, *texts: str) -> str:
    """Opens a link, waits for the texts, and returns all that the page shows."""
    page.goto("about:blank")  # so that a change after the # is a new page
    page.goto(url)
    for text in texts:
        page.get_by_text(text, exact=False).first.wait_for(timeout=TIMEOUT_MS)
    shown = page.locator("body").inner_text()
    assert "Error loading shared view" not in shown
    return shown


@needs_chromium
@pytest.mark.server
@pytest.mark.process
@pytest.mark.long
def test_each_link_opens_what_it_promises(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    sync = open_sync(target, tracked.storage)
    sync.finish(WARMUP)
    for name, params in SETTINGS.items():
        one = item(name)
        sync.finish(replace(one, params={"method": "drive", "sparsity": "0.9", **params}))
    best = RecommendedTrial(group="s0.9", alias="best-s90", trial_key=item("w02-r0").key, network="convnet", sentence=SENTENCE)
    sync.close_sweep(
        "FINISHED",
        SweepSummary(
            description=f"- {SENTENCE}\n\nand more",
            metrics={"best/s0.9/val_accuracy": 0.8125, "best/s0.9/test_accuracy": 0.75},
            step=3,
            time_ms=1000,
            recommended=(best,),
            artifacts={"report.html": b"<!doctype html><title>r</title><h1>the page of the sweep</h1>"},
        ),
    )
    config = {"method": "drive", "sparsity": 0.9, "model": "convnet"}
    state = SweepState(sweep=SWEEP, experiment_id=sync.experiment_id, parent_run_id=sync.parent_run_id)
    state.trials = {"a": TrialStatus(key="a", name="a", state="finished", config=config)}
    values = {
        name: dict(sync.runs.client.get_run(run_id).data.metrics)["val/accuracy"]
        for name, run_id in ((name, sync.runs.by_key["trial", item(name).key].run_id) for name in SETTINGS)
    }
    with serve(target, port=0) as base, running_chromium() as browser:
        shown = links(base, state)
        page = browser.new_context(viewport={"width": 1800, "height": 1000}).new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))

        open_and_expect(page, shown["the sweep's run"], SENTENCE, "best/s0.9/val_accuracy", "0.8125")
        page.goto("about:blank")
        page.goto(shown["its report"])
        page.frame_locator("iframe").get_by_text("the page of the sweep").wait_for(timeout=TIMEOUT_MS)

        texts = open_and_expect(
            page, shown["trials, best first"], "w02-r0", "val/accuracy", "prune_iterations", "3 matching runs"
        )
        assert WARMUP.name not in texts
        order = [line for line in texts.splitlines() if line in SETTINGS]
        assert sorted(order) == sorted(SETTINGS)
        assert [values[name] for name in order] == sorted(values.values(), reverse=True)

        texts = open_and_expect(page, shown["compare at 0.9"], "Parallel Coordinates", "warmup_epochs vs. prune_iterations")
        assert {line for line in texts.splitlines() if line in SETTINGS} == set(SETTINGS)
        page.locator(".contourlayer .contour").first.wait_for(state="attached", timeout=TIMEOUT_MS)

        open_and_expect(page, shown["all sweeps"], SWEEP, "best/s0.9/val_accuracy", "0.8125", "1 matching run")
        open_and_expect(page, shown[f"model {SWEEP}-convnet"], "best-s90", SENTENCE, "Version 1")
    outside = [url for url in requests if not url.startswith((base, "data:", "blob:", "about:"))]
    assert outside == []
