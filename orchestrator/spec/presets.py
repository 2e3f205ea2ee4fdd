"""Presets, which are sweep files that come with the program, and the text of any sweep file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path as FilePath

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.spec.error_messages import did_you_mean
from orchestrator.spec.guide_tables import template_lines

TEMPLATE = "template"
MOST_BYTES = 256 << 10  # of a sweep file; the YAML reader takes up to 5 s for that


def preset_names() -> list[str]:
    """Names of the presets, such as digits or reference/cifar10-vgg16."""
    return sorted(name for name in _names(_sweeps()) if name != TEMPLATE)


def _names(folder: Traversable, prefix: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.name.endswith(".yaml"):
            yield prefix + entry.name.removesuffix(".yaml")
        elif entry.is_dir():
            yield from _names(entry, f"{prefix}{entry.name}/")


def template() -> str:
    """A commented sweep file with every key, as a starting point."""
    text = _sweeps().joinpath(f"{TEMPLATE}.yaml").read_text(encoding="utf-8")
    for placeholder, lines in template_lines().items():
        text = text.replace(f"# {placeholder}" if placeholder == "{options}" else placeholder, lines)
    return text


def preset_text(name: str) -> str:
    """The text of a preset. Raises UserError if there is none of that name."""
    known = preset_names()
    if name not in known:
        hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
        raise UserError(f"--from: must be a preset, got {name!r}", hint, code="preset-unknown")
    return _sweeps().joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def _sweeps() -> Traversable:
    return resources.files("orchestrator").joinpath("sweeps")


def sweep_text(file: str) -> str:
    """The text of a sweep file, or of the preset of that name; a file takes precedence.

    Raises:
        UserError: there is neither, or the file cannot be read.
    """
    path = FilePath(os.path.expanduser(file))
    try:
        source = _sweeps().joinpath(f"{file}.yaml") if file in preset_names() and not path.is_file() else path
        with source.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            message = f"{file}: must be a sweep file, got more than {MOST_BYTES >> 10} KiB"
            raise UserError(message, "give another file", code="sweep-file-unreadable")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        known = preset_names()
        rule = f"must be a file or one of the presets {', '.join(known)}"
        hint = did_you_mean(file.removesuffix(".yaml"), known) or f"`{command('init')}` writes a file to start from"
        raise UserError(f"{file}: {rule}, got no such file", hint, code="sweep-file-not-found") from None
    except IsADirectoryError:
        message = f"{file}: must be a sweep file, got a folder"
        raise UserError(message, "give a file in it", code="sweep-file-unreadable") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"{file}:{line}: must be UTF-8 text, got byte {error.object[error.start]:#x}"
        raise UserError(message, "save it as UTF-8", code="sweep-file-unreadable") from None
    except OSError as error:
        message = f"{file}: must be readable, got {error.strerror!r}"
        raise UserError(message, "check the file and its permissions", code="sweep-file-unreadable") from None
