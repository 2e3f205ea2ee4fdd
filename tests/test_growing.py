"""What a sweep asks of a cluster that adds nodes on demand; tests.proofs.growing runs it with Ray's autoscaler."""

from __future__ import annotations

import pytest

from orchestrator.errors import SetupError
from orchestrator.packing import _device, _largest_node
from orchestrator.scheduling import Hooks, StageSearcher
from orchestrator.spec_fields import Resources
from orchestrator.stages import Entry, StageQueue


@pytest.mark.parametrize(("most", "handed_out"), [(None, 4), (2, 2), (9, 4)])
def test_no_more_stages_are_under_way_than_were_asked_for(most: int | None, handed_out: int) -> None:
    trials = {key: Entry(kind="trial", key=key, name=key, config={}, work=1) for key in "abcd"}
    searcher = StageSearcher(StageQueue(trunks={}, trials=trials), Hooks(lambda *_: None, lambda: None, lambda: None), most)
    suggested = [searcher.suggest(f"id-{number}") for number in range(6)]
    assert [one is not None for one in suggested] == [True] * handed_out + [False] * (6 - handed_out)
    searcher.on_trial_result("id-0", {"event": "ended", "status": "finished", "message": ""})
    assert (searcher.suggest("id-6") is not None) == (handed_out < 4)


def test_a_cluster_that_may_grow_needs_no_gpu_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", dict)
    assert _device(Resources(device="cuda", max_concurrent=4), None) == "cuda"
    with pytest.raises(SetupError, match="the cluster has none"):
        _device(Resources(device="cuda"), None)


def test_without_a_node_to_measure_on_the_shares_have_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", list)
    with pytest.raises(SetupError, match="as numbers"):
        _largest_node("GPU")
