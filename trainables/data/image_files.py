"""The image files below a data set's folder, and which other files are skipped. No file is opened.

Links to files and folders are followed. Hidden files and folders are not data. A name with the suffix of an image must be a
file, since an image that is skipped would be missing from its class.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import DataError
from trainables.findings import Finding, Severity

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
OTHER_IMAGES = (
    *(".gif", ".tif", ".tiff", ".jfif", ".jpe", ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".heif", ".pgm", ".pbm", ".pnm"),
    *(".pfm", ".apng", ".dib", ".tga", ".ico", ".svg", ".psd", ".exr", ".hdr", ".dcm", ".nii", ".npy", ".npz", ".raw", ".dng"),
)
# Left in folders by macOS, Windows, network drives and Python; names that begin with a dot are hidden too.
HIDDEN = {"__MACOSX", "@eaDir", "__pycache__", "Thumbs.db", "ehthumbs.db", "desktop.ini"}
EXAMPLES = 3
_READ = ", ".join(IMAGE_SUFFIXES)
_REASONS: dict[str, tuple[Severity, str, str]] = {  # severity, rule, hint
    "nested": ("warning", "images in folders inside a class folder are not read", "move them up into the class folder"),
    "without_class": ("warning", "images outside a class folder are not read", "move them into the folders of their classes"),
    "other_format": ("warning", f"images are read from {_READ} files only", "save the others in one of these formats"),
    "empty_class": ("warning", "a folder without images is not a class", "remove it, or put its images there"),
    "other_file": ("info", f"only {_READ} files are read", ""),
    "hidden": ("info", "hidden files and folders are not read", ""),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedFiles:
    """Files and folders that are skipped for the same reason.

    Attributes:
        reason: "nested", "without_class", "other_format", "empty_class", "other_file" or "hidden".
        examples: the first names below the data set's folder, at most three, printable.
    """

    reason: str
    count: int
    examples: tuple[str, ...]

    def finding(self) -> Finding:
        severity, rule, hint = _REASONS[self.reason]
        more = ", ..." if self.count > len(self.examples) else ""
        message = f"dataset.root: {rule}; {self.count} skipped: {', '.join(self.examples)}{more}"
        return Finding(check="left_out", severity=severity, message=message, hint=hint, places=self.examples)


class ImageFolders:
    """The folders of a data set, listed one by one; counts what is skipped in them.

    Args:
        root: the data set's folder. All names are relative to it, with "/" as separator.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._skipped: dict[str, list[str]] = {reason: [] for reason in _REASONS}

    def skipped(self) -> tuple[SkippedFiles, ...]:
        """What was skipped in all folders that were listed so far, by reason."""
        return tuple(
            SkippedFiles(reason=reason, count=len(names), examples=tuple(printable(name) for name in sorted(names)[:EXAMPLES]))
            for reason, names in self._skipped.items()
            if names
        )

    def class_images(self, split: str, below: str = "") -> list[str]:
        """Names of the images in all class folders of a split, by class and name.

        Args:
            below: folder within a class folder that holds its images, such as "/images".

        Raises:
            DataError: what looks like a class or an image is not one, so that a class or an image would be missing.
        """
        names = []
        for folder in (f"{split}/{name}" for name in self.classes(split)):
            skipped_before = {reason: len(self._skipped[reason]) for reason in ("other_format", "nested")}
            images = self.images(folder + below)
            if not images:
                if below and self.images(folder):
                    raise DataError(f"{self._location(folder)} must hold its images in {below[1:]!r}", "move them there")
                for reason, count in skipped_before.items():
                    if others := self._skipped[reason][count:]:
                        got = f"{len(others)} others such as {printable(min(others))!r}"
                        rule, hint = _REASONS[reason][1:]
                        raise DataError(f"{self._location(folder)} must hold images, got {got}", f"{rule}: {hint}")
                self._skipped["empty_class"].append(folder)
            names += images
        return names

    def classes(self, split: str) -> list[str]:
        """Sorted names of the folders in a split.

        Raises:
            DataError: a folder is linked twice or contains itself, or a link is broken.
        """
        folders: dict[str, str] = {}  # real path -> name
        parent = os.path.realpath(self.root / split)
        for entry in self._visible(split):
            name = f"{split}/{entry.name}"
            if not _is_folder(entry):
                if entry.name.lower().endswith((*IMAGE_SUFFIXES, *OTHER_IMAGES)):
                    self._skipped["without_class"].append(name)
                elif entry.is_symlink() and not _is_file(entry):
                    raise DataError(
                        f"{self._location(name)} must be a folder, got {_kind(entry)}", "restore it, or remove the link"
                    )
                continue
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(parent, entry.name)
            if os.path.commonpath([real, parent]) == real:
                raise DataError(
                    f"{self._location(name)} must not be a link to a folder that holds it, got {real!r}", "remove the link"
                )
            if real in folders:
                rule = f"{self._location(name)} must be another folder than class {folders[real]!r}"
                raise DataError(f"{rule}, got a link to the same images", "remove one of them")
            folders[real] = entry.name
        return sorted(folders.values())

    def images(self, folder: str) -> list[str]:
        """Sorted names of the images in a folder; none where it is missing.

        Raises:
            DataError: a name with the suffix of an image is not a file.
        """
        if not (self.root / folder).is_dir():
            return []
        names = []
        for entry in self._visible(folder):
            name, lower = f"{folder}/{entry.name}", entry.name.lower()
            if lower.endswith(IMAGE_SUFFIXES):
                if not _is_file(entry):
                    raise DataError(f"{self._location(name)} must be a file, got {_kind(entry)}", "restore it, or remove it")
                names.append(name)
            elif _is_folder(entry):
                self._skipped["nested"] += [name] if entry.is_symlink() else _images_below(entry.path, name)
            else:
                self._skipped["other_format" if lower.endswith(OTHER_IMAGES) else "other_file"].append(name)
        return sorted(names)

    def _visible(self, folder: str) -> list[os.DirEntry[str]]:
        with os.scandir(self.root / folder) as scanned:
            entries = list(scanned)
        self._skipped["hidden"] += [f"{folder}/{entry.name}" for entry in entries if is_hidden(entry.name)]
        return [entry for entry in entries if not is_hidden(entry.name)]

    def _location(self, name: str) -> str:
        return f"dataset.root: {str(self.root / name)!r}"


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in HIDDEN


def printable(name: str) -> str:
    """The name with escapes for line breaks and for bytes that are not UTF-8."""
    return repr(name)[1:-1]


def _images_below(path: str, name: str) -> list[str]:
    """Names of the images at any depth below a folder; links are not followed, so a loop ends."""
    names = []
    for folder, _, files in os.walk(path):
        below = name + folder[len(path) :]
        names += [f"{below}/{file}" for file in files if file.lower().endswith((*IMAGE_SUFFIXES, *OTHER_IMAGES))]
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or a folder without permission
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is instead of a file or folder, for messages."""
    if _is_folder(entry):
        return "a folder"
    try:
        entry.stat()
    except OSError as error:
        link = f"a link to {os.readlink(entry.path)!r} that cannot be followed: {error.strerror}" if entry.is_symlink() else ""
        return link or str(error)
    return "a named pipe, a socket or a device"
