"""A data function whose DataLoader never returns: the command says where, and leaves no process behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.planning.decoding_process import facts_by_decoding
from tests.support.cli import wait_for
from trainables.custom.files import CustomFiles
from trainables.custom.references import sha256
from trainables.data.source import DatasetSource
from trainables.errors import DataError

FUNCTION = """
import os, threading
from pathlib import Path
from torch.utils.data import DataLoader

LOCK = threading.Lock()


class Locked:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        Path({file!r}).write_text(str(os.getpid()))
        with LOCK:  # was held when this process was forked
            return index


def images(root):
    with LOCK:
        return list(DataLoader(Locked(), num_workers=1))
"""


@pytest.mark.long
@pytest.mark.process
def test_deadlocked_loader_is_named_and_ended(tmp_path: Path) -> None:
    (tmp_path / "locked.py").write_text(FUNCTION.format(file=str(tmp_path / "pid")))
    name = "module:locked.images"
    files = CustomFiles(modules_path=str(tmp_path), digests={name: sha256((tmp_path / "locked.py").read_bytes())})
    source = DatasetSource(name=name, root=str(tmp_path), modules_path=str(tmp_path))
    with pytest.raises(
        DataError, match=r"must return its images, got a hang: .* it was waiting in locked\.py line 21 \(images\)"
    ):
        facts_by_decoding(source, files, limit_s=10.0)
    worker = int((tmp_path / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{worker}/fd/0").exists())
