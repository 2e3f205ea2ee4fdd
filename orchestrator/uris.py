"""Which URIs of storages and tracking stores may be written down: they are kept in files, logged, and sent to clusters.

A URI holds no login and no key, not even by mistake: these come from the environment. What is wrong is told without repeating
it.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from orchestrator.errors import UserError

STORES = ("s3", "gs")
OPTIONS = ("endpoint_override", "scheme", "region")  # of an object store, after '?'
SECRET = re.compile(r"pass|secret|token|key|user", re.IGNORECASE)  # in the name of an option of a database
ANY_RULE = "a folder or a URI without a login in it (that comes from the environment)"
STORAGE_RULE = "a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX without a login in it (that comes from the environment)"


def uri_problem(uri: str) -> str:
    """What to do about a URI that may not be written down; empty for one that may, and for a path."""
    scheme, rest = _parts(uri)
    if not rest:
        return ""
    try:
        split = urlsplit(uri)
        if scheme not in STORES:
            _ = split.port
    except ValueError:
        return "correct its host and port"
    if "@" in rest:
        is_login = "@" in split.netloc or ":" in rest.rpartition("@")[0]
        return f"write {redacted(uri).replace('...@', '')}" if is_login else "choose a name without @"
    if scheme in STORES and ":" in split.netloc:
        return f"write {scheme}://BUCKET/PREFIX?endpoint_override=HOST:PORT&scheme=http"
    wrong = [name for name in _options(split.query) if not _may_have(scheme, name)]
    if not wrong:
        return ""
    told = f"remove {wrong[0]!r}" if re.fullmatch(r"[a-z_]{1,30}", wrong[0]) else "remove what follows"
    return f"{told} after '?'" + (f", where only {', '.join(OPTIONS)} may stand" if scheme in STORES else "")


def storage_uri_problem(uri: str) -> str:
    """The same for a storage, which is a folder or a prefix of an object store."""
    scheme, _, rest = uri.partition("://")
    if scheme.lower() == "file" or "://" not in uri:
        return ""
    if scheme.lower() not in STORES or not rest.partition("/")[0]:
        return "correct it"
    return uri_problem(uri)


def require_no_credentials(place: str, uri: str, storage: bool) -> None:
    """Raises UserError for a URI that may not be written down; `place` is the option that it was given with."""
    if way_out := storage_uri_problem(uri) if storage else uri_problem(uri):
        raise UserError(f"{place}: must be {STORAGE_RULE if storage else ANY_RULE}, got {redacted(uri)!r}; {way_out}")


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
    """Whether two names of storages are spelt alike but for slashes at the end."""
    return _without_slash(first) == _without_slash(second)


def _without_slash(uri: str) -> tuple[str, str]:
    place, _, query = uri.partition("?")
    return place.removeprefix("file://").rstrip("/"), query


def _parts(uri: str) -> tuple[str, str]:
    """Scheme, and what follows it where that begins with a host or a bucket; empty for a path."""
    scheme, _, rest = uri.partition("://")
    return scheme.lower(), "" if rest.startswith("/") else rest


def _options(query: str) -> list[str]:
    named = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
    return named if named or not query else [query]


def _may_have(scheme: str, option: str) -> bool:
    if scheme in STORES:
        return option in OPTIONS
    return scheme not in ("http", "https") and not SECRET.search(option)
