"""`resume --set` changes what decides no number, and says what any other key decides."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.search.changed_settings import with_settings
from orchestrator.spec.loader import resolved
from tests.support.sweep_files import BASE, load_text

GRID = BASE + "method: [drive, snip]\nsearch: {warmup_epochs: [0, 2], seed: [0, 1]}\nsparsity: 0.9\ntraining: {epochs: 4}\n"
SEARCH = BASE + "search: {warmup_epochs: [0, 2]}\nseeds: {first: 2, most: 4}\nbudget: {epochs: 100}\nsparsity: 0.9\n"


@pytest.mark.parametrize(
    "override",
    [
        "resources.gpus_per_trial=1",
        "resources.max_concurrent=3",
        "retries.lost=2",
        "checkpoint_seconds=5",
        "stage_timeout=900",
        "share_warmups=false",
        "on_error=continue",
        "tracking.uri=http://localhost:5000",
        "tracking.models=none",
        "modules_path=elsewhere",
    ],
)
@pytest.mark.parametrize("text", [GRID, SEARCH], ids=["grid", "search"])
def test_keys_that_decide_nothing_change(text: str, override: str) -> None:
    spec = load_text(text)
    changed = with_settings(spec, [override])
    assert resolved(changed) == resolved(load_text(text, override)) != resolved(spec)


def test_a_key_that_decides_may_be_given_as_it_is() -> None:
    assert with_settings(load_text(GRID), ["training.epochs=4"]) == load_text(GRID)


@pytest.mark.parametrize(
    ("text", "override", "decided"),
    [
        (GRID, "training.lr=0.2", "the trials"),
        (GRID, "search.warmup_epochs=[0, 2, 4]", "the trials"),
        (GRID, "sparsity=0.8", "the trials"),
        (GRID, "method=drive", "the trials"),
        (GRID, "baseline=none", "the trials"),
        (GRID, "precision=fp32", "the trials"),
        (GRID, "dataset.limit=500", "the trials"),
        (GRID, "objective={val/loss: min}", "what is recommended"),
        (GRID, "budget.epochs=50", "the course of the search"),
        (GRID, "name=other", "which sweep this is"),
        (GRID, "storage=elsewhere", "which sweep this is"),
        (GRID, "resources.cpus_per_trial=2", "the fingerprint"),
        (GRID, "resources.device=cpu", "the fingerprint"),
        (GRID, "resources.deterministic=true", "the fingerprint"),
        (GRID, "resources.compile=true", "the fingerprint"),
        (SEARCH, "budget.epochs=200", "the course of the search"),
        (SEARCH, "seeds.most=6", "the course of the search"),
        (SEARCH, "early_stopping.name=asha", "the course of the search"),
    ],
)
def test_keys_that_decide_are_refused_with_what_they_decide(text: str, override: str, decided: str) -> None:
    with pytest.raises(UserError) as error:
        with_settings(load_text(text), ["retries.lost=2", override])
    assert error.value.message.startswith(f"--set {override}: {override.partition('=')[0]} decides {decided}")


def test_an_invalid_value_names_the_option() -> None:
    with pytest.raises(UserError, match=r"--set retries.lost: retries.lost must"):
        with_settings(load_text(GRID), ["retries.lost=-1"])
