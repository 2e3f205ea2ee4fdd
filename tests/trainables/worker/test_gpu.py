"""The guarantees of tests/gpu/checks.py on a CUDA device; `python -m tests.gpu` checks them without pytest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.checks import CHECKS
from tests.gpu.rows import SkippedError

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


@pytest.mark.parametrize("name", CHECKS)
def test_guarantees_hold_on_a_gpu(name: str, tmp_path: Path) -> None:
    try:
        CHECKS[name]("cuda", tmp_path)
    except SkippedError as reason:
        pytest.skip(str(reason))
