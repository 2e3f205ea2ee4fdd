"""The images of a folder: links are followed, hidden files are skipped, and skipped files are counted."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from trainables.data.datasets import content_digest, file_index, files, load, signature, skipped
from trainables.data.file_index import FileIndex
from trainables.data.source import DatasetSource
from trainables.errors import DataError

CLASSES = ("ant", "bee", "cow")


def write(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, 0, 255 - value)).save(path, format="PNG")
    return path


def data_set(name: str, root: Path) -> DatasetSource:
    """Three classes of two training images and a test image, in the layout of the data set."""
    for number, label in enumerate(CLASSES):
        for index in range(2):
            write(root / "train" / label / ("images" if name == "tiny_imagenet" else "") / f"{label}{index}.png", 40 * number)
        split = {"image_folder": "test", "imagenet": "val", "tiny_imagenet": "val"}[name]
        write(root / split / ("images" if name == "tiny_imagenet" else label) / f"val{number}.png", 40 * number)
    if name == "tiny_imagenet":
        lines = "".join(f"val{number}.png\t{label}\t0\t0\t8\t8\n" for number, label in enumerate(CLASSES))
        (root / "val" / "val_annotations.txt").write_text(lines)
    return DatasetSource(name=name, root=str(root), image_size=8)


def skipped_of(source: DatasetSource) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {left.reason: (left.count, left.examples) for left in skipped(source)}


def refusal(source: DatasetSource) -> str:
    """The same for whatever asks: the plan (signature and digest), the data checks, and a trial."""
    messages = set()
    for ask in (files, signature, content_digest, skipped, file_index):
        with pytest.raises(DataError) as caught:
            ask(source)
        messages.add(str(caught.value))
    (message,) = messages
    return message


every_layout = pytest.mark.parametrize("name", ["image_folder", "imagenet", "tiny_imagenet"])


@every_layout
def test_nothing_is_skipped_in_a_folder_of_images(tmp_path: Path, name: str) -> None:
    assert skipped_of(data_set(name, tmp_path)) == {}


@every_layout
def test_linked_class_folder_is_a_class(tmp_path: Path, name: str) -> None:
    source = data_set(name, tmp_path / "data")
    expected = file_index(source), content_digest(source)
    for label in CLASSES[:2]:
        shutil.move(tmp_path / "data" / "train" / label, tmp_path / f"elsewhere-{label}")
        (tmp_path / "data" / "train" / label).symlink_to(tmp_path / f"elsewhere-{label}")
    assert (file_index(source), content_digest(source)) == expected
    assert len(expected[0].train) == 6


@every_layout
def test_linked_files_splits_and_roots_are_followed(tmp_path: Path, name: str) -> None:
    plain = data_set(name, tmp_path / "data")
    for path in list((tmp_path / "data").rglob("*.png")):
        path.rename(tmp_path / path.name)
        path.symlink_to(os.path.relpath(tmp_path / path.name, path.parent))
    (tmp_path / "root").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "root" / split).symlink_to(tmp_path / "data" / split)
    (tmp_path / "link").symlink_to("root")
    linked = DatasetSource(name=name, root=str(tmp_path / "link"), image_size=8)
    assert content_digest(linked) == content_digest(plain)
    assert len(file_index(linked).train) == 6


@every_layout
@pytest.mark.parametrize("target", [".", "..", "../..", "loop"])
def test_class_link_loop_is_rejected_with_its_path(tmp_path: Path, name: str, target: str) -> None:
    source = data_set(name, tmp_path)
    (tmp_path / "train" / "loop").symlink_to(target)
    assert f"dataset.root: '{tmp_path}/train/loop' must" in refusal(source)


@every_layout
def test_folder_linked_as_two_classes_is_rejected(tmp_path: Path, name: str) -> None:
    source = data_set(name, tmp_path)
    (tmp_path / "train" / "dog").symlink_to("cow")
    message = refusal(source)
    assert "must be another folder than class" in message
    assert "got a link to the same images; remove one of them" in message


@every_layout
@pytest.mark.parametrize("place", ["train/gone", "train/cow/{below}gone.png"])
def test_broken_link_is_named(tmp_path: Path, name: str, place: str) -> None:
    source = data_set(name, tmp_path)
    path = tmp_path / place.format(below="images/" if name == "tiny_imagenet" else "")
    path.symlink_to("/nowhere/to\nbe")
    message = refusal(source)
    assert f"{str(path)!r} must be a" in message
    assert (
        "got a link to '/nowhere/to\\nbe' that cannot be followed: No such file or directory; restore it, or remove" in message
    )


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the whole path is too long for a socket
        os.close(folder)


def as_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@every_layout
@pytest.mark.parametrize("make", [as_pipe, as_socket, as_device, os.mkdir])
def test_image_name_that_is_not_a_file_is_rejected(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    source = data_set(name, tmp_path)
    path = Path(file_index(source).root / file_index(source).train[0]).with_name("x.png")
    make(path)
    kind = "a folder" if make is os.mkdir else "a named pipe, a socket or a device"
    assert refusal(source) == f"dataset.root: {str(path)!r} must be a file, got {kind}; restore it, or remove it"


@every_layout
def test_hidden_files_and_folders_are_skipped(tmp_path: Path, name: str) -> None:
    source = data_set(name, tmp_path)
    before = file_index(source), content_digest(source)
    folder = Path(file_index(source).root / file_index(source).train[0]).parent
    hidden = [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "__pycache__"]
    for one in hidden:
        write(tmp_path / "train" / one / "images" / "x.png")
        write(tmp_path / "train" / one / "x.png")
    for one in (".DS_Store", "Thumbs.db", "._ant0.png", ".hidden.png", "desktop.ini"):
        (folder / one).write_bytes(b"no image")
    (tmp_path / "train" / ".#lock").symlink_to("somebody@somewhere")
    after = file_index(source)
    assert (after.train, after.train_labels, after.classes) == (before[0].train, before[0].train_labels, before[0].classes)
    assert content_digest(source) == before[1]
    assert skipped_of(source) == {"hidden": (11, ("train/.#lock", "train/.git", "train/.ipynb_checkpoints"))}


@pytest.mark.parametrize("name", ["image_folder", "imagenet"])
def test_skipped_files_are_counted_by_reason(tmp_path: Path, name: str) -> None:
    source = data_set(name, tmp_path)
    before = file_index(source)
    for index in range(4):
        write(tmp_path / "train" / "ant" / "more" / f"deep{index}" / "a.png")
    write(tmp_path / "train" / "loose.png")
    (tmp_path / "train" / "README.md").write_text("no class")
    for other in ("a.gif", "b.TIF", "c.tiff"):
        shutil.copy(tmp_path / "train" / "ant" / "ant0.png", tmp_path / "train" / "bee" / other)
    (tmp_path / "train" / "cow" / "notes.txt").write_text("")
    (tmp_path / "train" / "cow" / "loop").symlink_to(".")
    (tmp_path / "train" / "lost+found").mkdir()
    after = file_index(source)
    assert (after.train, after.test, after.classes) == (before.train, before.test, before.classes)
    assert skipped_of(source) == {
        "nested": (5, ("train/ant/more/deep0/a.png", "train/ant/more/deep1/a.png", "train/ant/more/deep2/a.png")),
        "without_class": (1, ("train/loose.png",)),
        "other_format": (3, ("train/bee/a.gif", "train/bee/b.TIF", "train/bee/c.tiff")),
        "other_file": (1, ("train/cow/notes.txt",)),
        "empty_class": (1, ("train/lost+found",)),
    }
    findings = {left.reason: left.finding() for left in skipped(source)}
    assert str(findings["nested"]) == (
        "dataset.root: images in folders inside a class folder are not read; 5 skipped: train/ant/more/deep0/a.png, "
        "train/ant/more/deep1/a.png, train/ant/more/deep2/a.png, ...; move them up into the class folder"
    )
    assert [finding.severity for finding in findings.values()] == ["warning", "warning", "warning", "warning", "info"]


@pytest.mark.parametrize("name", ["image_folder", "imagenet"])
@pytest.mark.parametrize("others", ["a.gif", "b.tiff", "more/c.png"])
def test_class_without_readable_images_is_rejected(tmp_path: Path, name: str, others: str) -> None:
    source = data_set(name, tmp_path)
    write(tmp_path / "train" / "dog" / others)
    message = refusal(source)
    assert f"'{tmp_path}/train/dog' must hold images, got 1 others such as 'train/dog/{others}'" in message


@every_layout
def test_data_set_of_unsupported_formats_is_rejected(tmp_path: Path, name: str) -> None:
    source = data_set(name, tmp_path)
    for path in list((tmp_path / "train").rglob("*.png")):
        path.rename(path.with_suffix(".tif"))
    message = refusal(source)
    assert "images are read from .jpg, .jpeg, .png, .bmp, .webp, .ppm files only" in message


@every_layout
def test_single_class_is_rejected(tmp_path: Path, name: str) -> None:
    source = data_set(name, tmp_path)
    shutil.rmtree(tmp_path / "train" / "ant")
    shutil.rmtree(tmp_path / "train" / "bee")
    for path in sorted(path for path in (tmp_path / "val").rglob("*.png") if path.stem != "val2"):
        path.unlink()
    for label in ("ant", "bee"):
        shutil.rmtree(tmp_path / "test" / label, ignore_errors=True)
    assert "must hold images of two classes or more, got 'cow' alone; add" in refusal(source)


def test_classes_and_images_are_sorted(tmp_path: Path) -> None:
    """ "ant-b/" sorts before "ant/": the order in which images have always been read, on which seeded choices rest."""
    source = data_set("image_folder", tmp_path)
    write(tmp_path / "train" / "ant-b" / "x.png", 200)
    listed: FileIndex = file_index(source)
    assert listed.classes == ("ant", "ant-b", "bee", "cow")
    assert listed.train[:2] == ["train/ant-b/x.png", "train/ant/ant0.png"]
    assert listed.train_labels == [1, 0, 0, 2, 2, 3, 3]
    assert load(source).train_images[0, 0, 0, 0] == 200


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    source = data_set("image_folder", tmp_path)
    (tmp_path / "train" / "ant" / "z.png").symlink_to("/proc/self/mem")  # not even root reads its first byte
    with pytest.raises(
        DataError, match=r"^dataset\.root: '.*/train/ant/z\.png' must be readable, got: Input/output error; repair"
    ):
        content_digest(source)
