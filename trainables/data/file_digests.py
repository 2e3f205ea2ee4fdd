"""The line of one file in the digest of a data set: its name below the data set's folder, its size and its content.

Names need not be UTF-8. Files that older versions decoded to other pixels have a mark in their line, so that results of those
pixels are not reused; the lines of all other files are those of older versions.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from trainables.custom.versions import NAME as VERSION
from trainables.custom.versions import declared_version
from trainables.data.decoding import HEAD_BYTES, is_sixteen_bit_grey
from trainables.data.torchvision_files import published_content

MODULE = "module"  # name of the function's own file; all others begin with root/
NEW_PIXELS = "\0high bytes"  # mark of 16-bit grey, which older versions cut off at 255


def content_line(named: tuple[str, Path]) -> bytes:
    """The line of a file that this project decodes; compressed files count by their content.

    Raises:
        DataError: its compression is damaged, or it unpacks to more than a published file.
    """
    name, path = named
    content = published_content(path) if path.suffix == ".gz" else _bytes(path)
    mark = NEW_PIXELS if is_sixteen_bit_grey(content[:HEAD_BYTES]) else ""
    return encoded_line(f"{name}\0{len(content)}\0{hashlib.sha256(content).hexdigest()}{mark}")


def raw_content_line(named: tuple[str, Path]) -> bytes:
    """The line of a file that a user's function reads, or of the function's own file, for which its version stands if it
    declares one; nothing is decompressed, since a .gz may be anything.
    """
    name, path = named
    content = _bytes(path)
    if name == MODULE and (version := declared_version(content)) is not None:
        return encoded_line(f"{name}\0{VERSION}\0{hashlib.sha256(version.encode()).hexdigest()}")
    return encoded_line(f"{name}\0{len(content)}\0{hashlib.sha256(content).hexdigest()}")


def size_line(named: tuple[str, Path]) -> bytes:
    """The line of a file of ImageNet, whose content is not read: there are more than a million."""
    name, path = named
    mark = ""
    if path.suffix.lower() in (".png", ".ppm"):
        with open(path, "rb") as file:
            mark = NEW_PIXELS if is_sixteen_bit_grey(file.read(HEAD_BYTES)) else ""
    return encoded_line(f"{name}\0{path.stat().st_size}{mark}")


def _bytes(path: Path) -> bytes:
    """The content; errors of reading name the file, as errors of opening do."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def encoded_line(text: str) -> bytes:
    return f"{text}\n".encode("utf-8", "surrogateescape")
