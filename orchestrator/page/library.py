"""The JavaScript that draws figures on a page. Bundling it takes seconds, so the cache folder keeps it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from importlib.metadata import version

from orchestrator.figures.render import VEGA_LITE
from trainables.errors import StorageError
from trainables.runtime.cache_folder import cache_folder
from trainables.runtime.files import atomic_write

SUFFIX = ".js"


def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, about 0.9 MB; it needs no network."""
    script = _kept()
    if script is None:
        import vl_convert

        script = str(vl_convert.javascript_bundle(vl_version=VEGA_LITE))  # type: ignore[call-arg]  # its stub has no default
        _keep(script)
    return script


def _kept() -> str | None:
    """The script of the installed versions in the cache, if it is what was written there."""
    with suppress(OSError, StorageError):
        for file in cache_folder().glob(f"{_name()}-*{SUFFIX}"):
            content = file.read_bytes()
            if file.name == _file_name(content):
                return content.decode()
    return None


def _keep(script: str) -> None:
    """Writes it to the cache, where that has room."""
    content = script.encode()
    with suppress(OSError, StorageError), atomic_write(cache_folder() / _file_name(content)) as partial:
        partial.write_bytes(content)


def _name() -> str:
    return f"vega-lite-{VEGA_LITE}-{version('vl-convert-python')}"


def _file_name(content: bytes) -> str:
    return f"{_name()}-{hashlib.sha256(content).hexdigest()}{SUFFIX}"
