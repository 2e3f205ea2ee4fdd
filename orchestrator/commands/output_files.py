"""Files that a command writes where the user says."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UserError


def write_output(option: str, path: Path, content: bytes) -> None:
    """Writes the file that an option names. Raises UserError if it cannot be written."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"{option} must be a file that can be written, got {str(path)!r}: {error.strerror}", code="output-not-writable"
        ) from error


def write_output_folder(option: str, folder: Path, files: dict[str, bytes]) -> None:
    """Writes files by their paths below a folder, which is made. Raises UserError if that fails."""
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    except OSError as error:
        raise UserError(
            f"{option} must be a folder that can be written, got {str(folder)!r}: {error.strerror}", code="output-not-writable"
        ) from error
