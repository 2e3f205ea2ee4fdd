"""Likeness of masks in a comparison: what is paired with what, and what is said without model files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.reporting.comparison import compare
from orchestrator.reporting.mask_overlap import mask_overlaps, masks_in, stability
from tests.orchestrator.reporting.test_comparison import of, seeds_of, sweep_of
from tests.support.cli import ask
from tests.support.export_sweep import export_sweep
from trainables.pruning.masks import Masks


def first(count: int, begin: int = 0) -> Masks:
    """Of 100 weights of one layer `count` from `begin` on; another layer stays dense."""
    kept = torch.zeros(100, dtype=torch.bool)
    kept[begin : begin + count] = True
    return {"a": kept, "b": torch.ones(20, dtype=torch.bool)}


def test_masks_are_paired_by_seed_and_their_likeness_averaged() -> None:
    drive, snip = of("drive"), of("snip")
    state = sweep_of(seeds_of(drive, {0: 0.9, 1: 0.9}), seeds_of(snip, {1: 0.8, 0: 0.8}))
    masks = {"t0": first(40), "t1": first(40), "t2": first(40, 20), "t3": first(40)}  # t2 is seed 1 of snip
    (result,) = mask_overlaps(compare(state), state, masks.get)
    # Seed 0: the same. Seed 1: 20 of 60 shared in one layer, all 20 of the other, so 40 of 80.
    assert (result.method, result.seeds) == ("snip", 2)
    assert result.overlap == pytest.approx((1 + 0.5) / 2)
    assert result.density_similarity == 1.0
    assert result.expected_overlap == pytest.approx(0.5 / (2 - 0.5))


def test_a_seed_without_a_model_file_is_left_out() -> None:
    state = sweep_of(seeds_of(of("drive"), {0: 0.9, 1: 0.9}), seeds_of(of("snip"), {0: 0.8, 1: 0.8}))
    masks = {"t0": first(40), "t1": first(40), "t2": first(20)}
    (result,) = mask_overlaps(compare(state), state, masks.get)
    assert result.seeds == 1
    assert result.overlap == pytest.approx(40 / 60)
    assert mask_overlaps(compare(state), state, lambda key: None) == []


def test_warmups_stand_beside_shorter_ones() -> None:
    lengths = (4, 0, 2)
    state = sweep_of(
        *(seeds_of(replace(of("drive"), warmup_epochs=length), {0: 0.9}) for length in lengths),
        *(seeds_of(replace(of("snip"), warmup_epochs=length), {0: 0.8}) for length in lengths),
    )
    masks = {"t0": first(40), "t1": first(60), "t2": first(40, 30)}  # warm-ups 4, 0 and 2
    overlaps = stability(compare(state), state, masks.get)
    assert [one.cell.warmup_epochs for one in overlaps] == [2, 4]
    assert overlaps[0].overlap == pytest.approx((30 + 20) / (70 + 20))
    assert overlaps[0].indicator == pytest.approx(1 - (20 / 100 + 0) / 2)
    assert overlaps[1].overlap == pytest.approx((10 + 20) / (70 + 20))
    assert overlaps[1].indicator == pytest.approx((1.0 + 1 - (20 / 100) / 2) / 2)


def test_the_command_reads_the_models_of_a_sweep(tmp_path: Path) -> None:
    export_sweep(
        tmp_path,
        "name: s\ndataset: {name: digits, limit: 200}\nmodel: convnet\nmethod: [drive, magnitude]\nsparsity: 0.9\n"
        "baseline: none\nsearch: {warmup_epochs: [0, 1]}\ntraining: {epochs: 1, batch_size: 50}\nprecision: fp32\n"
        "drive: {connection: 0, convergence: 0}\n",
    )
    asked = ("compare", "s", "--storage", tmp_path / "runs", "--masks")
    facts: Any = json.loads(ask(*asked, "--json").stdout)
    # With magnitude alone DRIVE is magnitude pruning, so both masks are one.
    assert [(one["method"], one["overlap"], one["widths"]) for one in facts["masks"]["between"]] == [
        ("magnitude", 1.0, 1.0)
    ] * 2
    (along,) = facts["masks"]["along_warmups"]
    assert 0 < along["overlap"] < 1
    assert 0 < along["indicator"] <= 1
    shown = ask(*asked).stdout
    assert "masks of drive and" in shown
    assert "masks of drive after longer warm-ups" in shown


def test_masks_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.storage.local import LocalStorage

    asked: list[str] = []

    def read(storage: LocalStorage, name: str) -> None:
        asked.append(name)

    monkeypatch.setattr(LocalStorage, "read", read)
    masks_of = masks_in(LocalStorage(str(tmp_path)))
    assert masks_of("k") is None
    assert masks_of("k") is None
    assert asked == ["trials/k/model.safetensors.zst"]
