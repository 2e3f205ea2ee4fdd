"""The comparison of scores: what passes, and what does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.exported_models import dense_model, model_of
from trainables.export import csr_format, torch_format
from trainables.export.verification import CUSTOM_TOLERANCE, ExportFailedError, _difference, tolerance_of


def test_scores_pass_up_to_the_tolerance_and_never_as_nan() -> None:
    expected = torch.tensor([[1.0, -10.0]])
    off = expected + torch.tensor([[0.0, 0.5]])
    assert _difference(expected, off, expected, expected, 0.1) == pytest.approx((0.5, 1.0))
    assert _difference(expected, expected, expected, off, 0.1)[0] == 0.5
    for scores in (off, expected * torch.nan):
        with pytest.raises(ExportFailedError, match="differ from those of the trial's model"):
            _difference(expected, scores, expected, expected, 0.01)
    with pytest.raises(ExportFailedError, match="of shape"):
        _difference(expected, expected.T, expected, expected, 0.1)


def test_custom_networks_may_differ_in_the_last_bits() -> None:
    assert tolerance_of(torch_format.FORMAT, dense_model()) == 0
    assert tolerance_of(csr_format.FORMAT, dense_model()) == csr_format.TOLERANCE
    assert tolerance_of(torch_format.FORMAT, model_of(nn.Flatten(), {})) == CUSTOM_TOLERANCE
