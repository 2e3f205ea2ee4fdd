"""The zoo of images and folders, read as an image folder and streamed as ImageNet: right, refused, left out, or anything else.

    python -m tests.acceptance.image_zoo

Prints the counts, and every entry whose outcome is not the one in tests/support/image_zoo.py; exits 1 if there is one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.support.image_zoo import ZOO, Entry, Left, Read, Refused, base
from tests.support.written_images import SIDE, Array
from trainables.config.trial import DatasetConfig
from trainables.data.datasets import file_index, load, skipped
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.data.streaming import center_crop
from trainables.errors import DataError


def as_image_folder(entry: Entry, root: Path) -> str:
    source = DatasetSource(name="image_folder", root=str(root), image_size=SIDE)
    images = load(source).train_images
    if isinstance(entry.outcome, Read):
        return _compared(
            entry.outcome, images[file_index(source).train.index(entry.outcome.name)].numpy(), entry.outcome.pixels
        )
    return _counted(entry, source, len(images))


def as_imagenet(entry: Entry, root: Path) -> str:
    (root / "test").rename(root / "val")
    source = DatasetSource(name="imagenet", root=str(root))
    train = load_data(DatasetConfig(name="imagenet", image_size=SIDE, validation=0.0), source, "cpu").train
    ((images, _),) = train.batches([torch.arange(len(train))])
    if isinstance(entry.outcome, Read):
        expected = np.asarray(center_crop(Image.fromarray(entry.outcome.pixels), SIDE))
        return _compared(entry.outcome, images[file_index(source).train.index(entry.outcome.name)].numpy(), expected)
    return _counted(entry, source, len(images))


def _compared(outcome: Read, image: Array, expected: Array) -> str:
    difference = np.abs(image.transpose(1, 2, 0).astype(int) - expected.astype(int)).max()
    return "right" if difference <= outcome.tolerance else f"other pixels, by up to {difference}"


def _counted(entry: Entry, source: DatasetSource, images: int) -> str:
    reasons = [left.reason for left in skipped(source)]
    if isinstance(entry.outcome, Left) and reasons == [entry.outcome.reason] and images == 2:
        return "left out and counted"
    return f"{images} images, left out: {reasons}"


def outcome(entry: Entry, read: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DRIVE_SWEEP_CACHE"] = f"{folder}/cache"
        root = base(Path(folder, "data"))
        entry.build(root)
        try:
            return {"image_folder": as_image_folder, "imagenet": as_imagenet}[read](entry, root)
        except DataError as error:
            message = str(error).replace(f"{root}/val", f"{root}/test")
            named = isinstance(entry.outcome, Refused) and entry.outcome.rule in message and entry.outcome.name in message
            return "refused by name and rule" if named else f"refused: {message}"
        except Exception as error:  # what must not happen, and is counted
            return f"{type(error).__name__}: {error}"


def main() -> int:
    others = 0
    for read in ("image_folder", "imagenet"):
        outcomes = {entry.name: outcome(entry, read) for entry in ZOO}
        good = ("right", "refused by name and rule", "left out and counted")
        counts = Counter(one if one in good else "anything else" for one in outcomes.values())
        print(f"{read}: {len(ZOO)} entries, " + ", ".join(f"{counts[name]} {name}" for name in (*good, "anything else")))
        for name, one in outcomes.items():
            if one not in good:
                print(f"  {name.encode('unicode_escape').decode()}: {one}")
        others += counts["anything else"]
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
