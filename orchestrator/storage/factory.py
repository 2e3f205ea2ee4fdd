"""Opens a storage by its URI, and checks that this version knows its layout."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module

from orchestrator.errors import SetupError
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import LAYOUT_FILE, LAYOUT_VERSION
from orchestrator.uris import STORAGE_SCHEMES, require_no_credentials, storage_scheme
from trainables.errors import StorageError
from trainables.records.self_digest import FIELD, is_whole
from trainables.runtime.json_text import parse_json


def open_storage(uri: str, create: bool = False) -> Storage:
    """The storage at a folder or a URI.

    Args:
        create: make it a storage if it is not one yet.

    Raises:
        UserError: the URI has no known scheme, or holds a login.
        SetupError: the storage cannot be reached or written, or has the layout of a newer version.
    """
    require_no_credentials("storage", uri, storage=True)
    module, _, name = STORAGE_SCHEMES[storage_scheme(uri)].storage.partition(":")
    storage_class: type[Storage] = getattr(import_module(module), name)
    try:
        storage = storage_class.open(uri)
        _check_layout(storage, create)
    except StorageError as error:
        raise SetupError(error.message, error.hint, code="storage-unavailable") from error
    return storage


def _check_layout(storage: Storage, create: bool) -> None:
    """Writes storage.json if it is missing and `create` is set, or if it is damaged: its content is known.

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
                f"storage {storage.root} has layout {layout}, this version knows {LAYOUT_VERSION}",
                "update drive-sweep",
                code="storage-layout-unsupported",
            )
        return
    else:
        print(f"storage {storage.root}: {LAYOUT_FILE} is damaged; writing it again", file=sys.stderr)
    if create or content is not None:
        with suppress(*(() if create else (StorageError,))):  # a read-only storage can still be read
            storage.write_json(LAYOUT_FILE, {"layout": LAYOUT_VERSION})


def _layout_in(content: bytes) -> int | None:
    """The layout that the file names; None if it is damaged. Only layout 1 was ever written without a digest."""
    try:
        record = parse_json(content)
    except ValueError:
        return None
    layout = record.get("layout") if isinstance(record, dict) else None
    if not isinstance(layout, int) or isinstance(layout, bool):
        return None
    whole = is_whole(record) if FIELD in record else record == {"layout": 1}
    return layout if whole else None
