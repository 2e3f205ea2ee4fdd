"""Names of groups in MLflow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.tracking.group_names import GroupName, group_names


@pytest.mark.parametrize(
    ("name", "sparsity", "group", "alias"),
    [
        ("s0.95", 0.95, "s0.95", "best-s95"),
        ("s0.9", 0.9, "s0.9", "best-s90"),
        ("s0.995", 0.995, "s0.995", "best-s99_5"),
        ("drive-s0.98", 0.98, "s0.98-drive", "best-s98-drive"),
        ("drive-s0.98-lr0.1", 0.98, "s0.98-lr0.1-drive", "best-s98-lr0_1-drive"),
        ("my/scores.py:sum-s0.5", 0.5, "s0.5-my_scores.py_sum", "best-s50-my_scores_py_sum"),
    ],
)
def test_sparsity_comes_first(name: str, sparsity: float, group: str, alias: str) -> None:
    assert group_names([(name, sparsity)]) == [GroupName(group=group, alias=alias)]


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=4), st.floats(0.001, 0.999))
def test_mlflow_takes_every_name_and_no_two_are_equal(methods: list[str], sparsity: float) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_model_alias_name

    names = group_names([(f"{method}-s{sparsity!r}", sparsity) for method in methods])
    for one in names:
        _validate_metric_name(f"best/{one.group}/val_accuracy")
        _validate_model_alias_name(one.alias)
    assert len({one.group for one in names}) == len({one.alias for one in names}) == len(methods)
