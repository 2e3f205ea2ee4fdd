"""A file of the storage that is emptied, cut, foreign or has a flipped bit; under a live driver or after its kill."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from tests.chaos.faults.fault import Fault, Hit, Scene, certain


def emptied(content: bytes, draw: random.Random) -> bytes:
    return b""


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))] if content else b""


def flipped(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return b"\0"
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def foreign(content: bytes, draw: random.Random) -> bytes:
    return draw.choice((b'{"another": "program"}\n', b"PK\x03\x04" + draw.randbytes(200), b"null\n"))


NO_RECORDS = {".mlflow.db.lock"}
DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "emptied": emptied,
    "cut": cut,
    "bit flipped": flipped,
    "foreign": foreign,
}


def _damage(name: str, after_kill: bool, scene: Scene) -> Hit | None:
    names = [name for name in scene.records.names() if name not in NO_RECORDS]
    if not names or scene.driver.poll() is not None:
        return None
    if after_kill:
        scene.driver.kill()
        scene.driver.wait()
    folder = scene.draw.choice(sorted({name.partition("/")[0] for name in names}))
    file = scene.draw.choice([name for name in names if name.partition("/")[0] == folder])
    try:
        content = scene.records.read(file)
        scene.records.write(file, DAMAGES[name](content, scene.draw))
    except (FileNotFoundError, KeyError):  # it was temporary
        return None
    scene.damaged.append(f"{file} {name}")
    return certain


DAMAGED_FILES = [
    Fault(
        name=f"file {name}{', driver dead' if after_kill else ''}",
        inject=partial(_damage, name, after_kill),
        kills=after_kill,
    )
    for name in DAMAGES
    for after_kill in (False, True)
]
