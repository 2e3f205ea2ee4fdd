"""Files that readers see whole or not at all, and the metadata of safetensors files, read without PyTorch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.runtime.json_text import parse_json


@contextmanager
def atomic_write(file: Path, before_publish: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A partial file beside the file, to be written inside; then it is flushed to the disk and renamed.

    Of several processes or threads that write the file at once the last one wins. After an exception inside the file is as it
    was before. `before_publish` is called last before the renaming, and may raise too.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        before_publish()
        os.replace(partial, file)
    except OSError as error:
        if error.filename is None and type(error) is OSError:  # of a write, which does not say where
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def safetensors_metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file.

    Raises:
        ValueError: the content is no such file, or has no metadata.
    """
    header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("it has no metadata")
    return metadata
