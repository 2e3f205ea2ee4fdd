"""URIs of storages and tracking stores: which may be written down, and what they look like without secrets.

URIs are kept in files, logged, and sent to clusters, so they hold no login and no key: these come from the environment. A
message about a URI never repeats its secrets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from orchestrator.errors import UserError


@dataclass(frozen=True, slots=True)
class StorageScheme:
    """A kind of storage, as far as its URIs go.

    Attributes:
        form: its URI in words, for messages and help texts.
        storage: "module:class" of its `Storage`, which is imported when one is opened.
        options: names that may stand in the query.
        server: query that names a host and port; they cannot stand before the path, where the bucket is.
    """

    form: str
    storage: str
    options: tuple[str, ...] = ()
    server: str = ""


STORE_OPTIONS = ("endpoint_override", "scheme", "region")
STORE_SERVER = "endpoint_override=HOST:PORT&scheme=http"
STORAGE_SCHEMES = {
    "file": StorageScheme("a folder", "orchestrator.storage.local:LocalStorage"),
    "s3": StorageScheme("s3://BUCKET/PREFIX", "orchestrator.storage.s3:S3Storage", STORE_OPTIONS, STORE_SERVER),
    "gs": StorageScheme("gs://BUCKET/PREFIX", "orchestrator.storage.gcs:GoogleStorage", STORE_OPTIONS, STORE_SERVER),
}
SECRET = re.compile(r"pass|secret|token|key|user", re.IGNORECASE)  # in the name of an option of a database


def _either(forms: list[str]) -> str:
    return " or ".join([", ".join(forms[:-1]), forms[-1]]) if len(forms) > 1 else forms[0]


STORAGE_FORMS = _either([scheme.form for scheme in STORAGE_SCHEMES.values()])
ANY_RULE = "a folder or a URI without a login in it (that comes from the environment)"
STORAGE_RULE = f"{STORAGE_FORMS} without a login in it (that comes from the environment)"


def storage_scheme(uri: str) -> str:
    """The scheme of a storage, in lower case; that of a path is "file"."""
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else "file"


def uri_problem(uri: str) -> str:
    """How to correct a URI that may not be written down; empty for one that may, and for a path."""
    scheme, rest = _parts(uri)
    if not rest:
        return ""
    store = _remote_storage(scheme)
    try:
        split = urlsplit(uri)
        if store is None:
            _ = split.port
    except ValueError:
        return "correct its host and port"
    if "@" in rest:
        is_login = "@" in split.netloc or ":" in rest.rpartition("@")[0]
        return f"write {redacted(uri).replace('...@', '')}" if is_login else "choose a name without @"
    if store is not None and store.server and ":" in split.netloc:
        return f"write {store.form}?{store.server}"
    rejected = [name for name in _options(split.query) if not _may_have(scheme, name)]
    if not rejected:
        return ""
    name = repr(rejected[0]) if re.fullmatch(r"[a-z_]{1,30}", rejected[0]) else "what follows"
    return f"remove {name} after '?'" + (
        f", where only {', '.join(store.options)} may stand" if store and store.options else ""
    )


def storage_uri_problem(uri: str) -> str:
    """The same for the URI of a storage, whose scheme must be a known one."""
    scheme = storage_scheme(uri)
    if scheme == "file":
        return ""
    if scheme not in STORAGE_SCHEMES or not uri.partition("://")[2].partition("/")[0]:
        return "correct it"
    return uri_problem(uri)


def require_no_credentials(option: str, uri: str, storage: bool) -> None:
    """Raises UserError for a URI that may not be written down.

    Args:
        option: name of the option or field, for the message.
        storage: it is the URI of a storage.
    """
    if hint := storage_uri_problem(uri) if storage else uri_problem(uri):
        rule = STORAGE_RULE if storage else ANY_RULE
        raise UserError(f"{option}: must be {rule}, got {redacted(uri)!r}", hint, code="uri-invalid")


def redacted(uri: str) -> str:
    """The URI without what may be secret in it; any other text as it is."""
    scheme, rest = _parts(uri)
    if not rest:
        return uri
    _, at, rest = rest.rpartition("@")
    body, mark, query = rest.partition("?")
    body = re.sub(r"^([^/\[]*?):(?!\d+(?:/|$))[^/]*", r"\1:...", body)  # no port, so it may be a password
    if query and not all(_may_have(scheme, name) for name in _options(query)):
        query = "..."
    return f"{uri.partition('://')[0]}://{'...@' if at else ''}{body}{mark}{query}"


def same_location(first: str, second: str) -> bool:
    """Whether two names of storages differ in nothing but slashes at the end."""
    return _without_slash(first) == _without_slash(second)


def _without_slash(uri: str) -> tuple[str, str]:
    location, _, query = uri.partition("?")
    return location.removeprefix("file://").rstrip("/"), query


def _parts(uri: str) -> tuple[str, str]:
    """Scheme, and what follows it where that begins with a host or a bucket; empty for a path."""
    scheme, _, rest = uri.partition("://")
    return scheme.lower(), "" if rest.startswith("/") else rest


def _remote_storage(scheme: str) -> StorageScheme | None:
    """The storage of a scheme, unless that is a folder."""
    return None if scheme == "file" else STORAGE_SCHEMES.get(scheme)


def _options(query: str) -> list[str]:
    names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    return names if names or not query else [query]


def _may_have(scheme: str, option: str) -> bool:
    if store := _remote_storage(scheme):
        return option in store.options
    return scheme not in ("http", "https") and not SECRET.search(option)
