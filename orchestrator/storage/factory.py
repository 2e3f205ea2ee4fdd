"""A storage by its URI, with the check that it is one and of a layout that this version knows."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import SetupError
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import LAYOUT_FILE, LAYOUT_VERSION
from orchestrator.storage.local import LocalStorage
from orchestrator.storage.object_store import object_storage
from trainables.errors import StorageError
from trainables.records.self_digest import FIELD, is_whole


def open_storage(uri: str, create: bool = False) -> Storage:
    """The storage at a folder, or at a prefix of an object store.

    Raises:
        UserError: the URI is neither.
        SetupError: the storage cannot be reached or written, or has the layout of a newer version.
    """
    try:
        storage = _storage_at(uri)
        _check_layout(storage, create)
    except StorageError as error:
        raise SetupError(str(error)) from error
    return storage


def _check_layout(storage: Storage, create: bool) -> None:
    """Writes storage.json where it is missing and `create` is set, or where it is damaged: its content is known.

    Raises:
        SetupError: the storage has the layout of a newer version.
        StorageError: the storage cannot be used.
    """
    content = storage.read(LAYOUT_FILE)
    if content is None:
        storage.validate()
    elif (layout := _layout_in(content)) is not None:
        if layout > LAYOUT_VERSION:
            raise SetupError(
                f"storage {storage.root} has layout {layout}, this version knows {LAYOUT_VERSION}; update drive-sweep"
            )
        return
    else:
        print(f"storage {storage.root}: {LAYOUT_FILE} is damaged; it is written anew", file=sys.stderr)
    if create or content is not None:
        with suppress(*(() if create else (StorageError,))):  # who only reads may do so from a storage that is read-only
            storage.write_json(LAYOUT_FILE, {"layout": LAYOUT_VERSION})


def _layout_in(content: bytes) -> int | None:
    """The layout that the file names; None if it is damaged. Without a digest only layout 1 was ever written."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    layout = record.get("layout") if isinstance(record, dict) else None
    if not isinstance(layout, int) or isinstance(layout, bool):
        return None
    whole = is_whole(record) if FIELD in record else record == {"layout": 1}
    return layout if whole else None


def _storage_at(uri: str) -> Storage:
    if "://" in uri and not uri.startswith("file://"):
        return object_storage(uri)
    return LocalStorage(str(Path(uri.removeprefix("file://")).expanduser().absolute()))
