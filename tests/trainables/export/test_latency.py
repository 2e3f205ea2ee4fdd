"""Latencies: who has a turn when, what is summarised, and what the verdict says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.support.exported_models import two_of_four_model
from trainables.export import fresh_process
from trainables.export.fresh_process import LoadedModel, WithoutProject, latencies
from trainables.export.latency import dense_twin, summarize


def test_every_model_has_a_turn_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []

    class Called(LoadedModel):
        def __init__(self, name: str) -> None:
            self.names: dict[str, Any] = {"images": np.zeros(1), "predict": lambda images: calls.append((name, len(images)))}

    monkeypatch.setattr(fresh_process, "MOST_ROUNDS", 40)
    times = latencies([Called("a"), Called("b")], np.zeros((3, 1, 2, 2), dtype=np.float32), 5, 60.0)
    assert [len(one) for one in times] == [40, 40]
    assert {size for _, size in calls} == {5}
    turns = [name for name, _ in calls[2 * fresh_process.WARM_UP_CALLS :: 2]]
    assert turns == [name for name, _ in calls[2 * fresh_process.WARM_UP_CALLS + 1 :: 2]], "each turn is two calls"
    assert all(sorted(turns[start : start + 2]) == ["a", "b"] for start in range(0, len(turns), 2))
    assert 10 < turns[::2].count("a") < 30, "either may be first"


def test_time_ends_after_the_fewest_rounds() -> None:
    class Quick(LoadedModel):
        def __init__(self) -> None:
            self.names: dict[str, Any] = {"images": np.zeros(1), "predict": lambda images: None}

    (times,) = latencies([Quick()], np.zeros((1, 1, 2, 2)), 1, 0.0)
    assert len(times) == fresh_process.FEWEST_ROUNDS


def test_project_is_hidden_from_a_models_code() -> None:
    finder = WithoutProject()
    for name in ("trainables", "trainables.export.sparse_model", "orchestrator.cli"):
        with pytest.raises(ModuleNotFoundError, match=name):
            finder.find_spec(name)
    assert finder.find_spec("json") is None


@pytest.mark.parametrize(
    ("factors", "verdict"), [((0.5, 0.6), "faster"), ((1.5, 2.5), "slower"), ((0.8, 1.2), "no faster"), ((1, 1), "no faster")]
)
def test_verdict_needs_nine_of_ten_rounds(factors: tuple[float, float], verdict: str) -> None:
    draw = np.random.default_rng(0)
    dense = draw.uniform(1e-3, 2e-3, 101)
    latency = summarize(["dense", "exported"], 4, [list(dense), list(dense * draw.uniform(*factors, 101))])
    assert latency.verdict == verdict
    assert latency.models[0].median == pytest.approx(1000 * sorted(dense)[50])
    assert [latency.models[0].low, latency.models[0].high] == pytest.approx([1000 * sorted(dense)[at] for at in (10, 90)])


def test_dense_twin_has_the_other_weights_and_no_zero() -> None:
    model = two_of_four_model()
    twin = dense_twin(model)
    for name, mask in model.masks.items():
        weight, before = twin.network.get_parameter(name), model.network.get_parameter(name)
        assert bool((weight != 0).all())
        assert torch.equal(weight[mask], before[mask])
    assert all(bool(mask.all()) for mask in twin.masks.values())
