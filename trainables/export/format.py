"""What a format of exported models is; table.py lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainables.export.sparse_model import SparseModel


class ExportRefusedError(Exception):
    """A model that a format cannot hold. Its text is "message; hint"."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.message = message
        self.hint = hint


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One format.

    Attributes:
        write: writes the model's files into a folder and returns the Python code that loads them, without this project, where
            that is the current folder. The code defines `predict(images)`, from float images (N, C, H, W) in 0..1 that are not
            normalised to class scores (N, classes), and `images`, an example. Raises ExportRefusedError.
        tolerance: how far a score of a built-in network may be from the trial's, as a share of the largest score; 0 means
            equal bits.
        runtime: what runs the exported model.
        write_dense: writes the files that `write` has left in one folder to another one, with no weight zero; None where
            PyTorch runs the same network with dense weights.
    """

    write: Callable[[SparseModel, Path], str]
    tolerance: float
    runtime: str
    write_dense: Callable[[Path, Path], None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A model that was written: its folder, and the code that loads it there, which imports the packages."""

    format: Format
    folder: Path
    code: str
    packages: tuple[str, ...]


def example_code(model: SparseModel, predict: str, images: str) -> str:
    """The end of a format's code: `predict` and its example.

    Args:
        predict: its lines.
        images: an expression for an array of four images.
    """
    shape = ", ".join(str(size) for size in model.card.image_shape)
    lines = "".join(f"    {line}\n" for line in predict.splitlines())
    return (
        "\n\ndef predict(images):\n"
        f'    """Class scores (N, {model.card.num_classes}) of float32 images (N, {shape}) in 0..1, not normalised."""\n'
        f"{lines}\n\n"
        f"images = {images.format(shape=f'4, {shape}')}  # put yours here\n"
        "print(predict(images).argmax(1))\n"
    )
