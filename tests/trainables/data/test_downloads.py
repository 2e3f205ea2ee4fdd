"""A data set that cannot be downloaded is an error of the data, with the reason and the fix."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest

from trainables.data.cifar import Cifar10
from trainables.data.datasets import download_if_missing
from trainables.data.source import DatasetSource
from trainables.errors import DataError


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (URLError(OSError(-3, "Temporary failure in name resolution")), "Temporary failure in name resolution"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("File not found or corrupted."), "File not found or corrupted."),
    ],
)
def test_failed_download_is_an_error_of_the_data(
    problem: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(dataset: Cifar10, root: str) -> None:
        raise problem

    monkeypatch.setattr(Cifar10, "download", fail)
    with pytest.raises(DataError) as error:
        download_if_missing(DatasetSource(name="cifar10", root=str(tmp_path), download=True))
    assert f"cifar10 cannot be downloaded into dataset.root {str(tmp_path)!r}: " in error.value.message
    assert reason in error.value.message
    assert error.value.hint == "put its files there, or try again"
