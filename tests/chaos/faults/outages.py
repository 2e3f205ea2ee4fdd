"""Servers that are down, slow, failing, half-open, or hang up half-way: MLflow's, and the object store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.chaos.faults.fault import Fault, Hit, Scene, Setting
from tests.chaos.ground import Ground
from tests.chaos.proxy import Mood, Proxy

SHORT_S = (0.5, 6.0)
WHOLE_S = 1000.0  # until the driver has ended, which does not wait for MLflow
STORE_S = 30.0  # a driver waits for its storage for many minutes
LONG = 0.3  # share of outages


def _disturb(door: Callable[[Ground], Proxy], mood: Mood, longest_s: float, scene: Scene) -> Hit:
    proxy = door(scene.ground)
    before = proxy.disturbed
    proxy.set(mood)
    length_s = longest_s if scene.draw.random() < LONG else scene.draw.uniform(*SHORT_S)
    scene.later(length_s, partial(proxy.set, Mood.WELL))
    return lambda: mood is Mood.DOWN or proxy.disturbed > before


def _has_server(setting: Setting) -> bool:
    return setting.tracking == "server"


def _has_store(setting: Setting) -> bool:
    return setting.storage == "s3"


MOODS = [mood for mood in Mood if mood is not Mood.WELL]
MLFLOW_OUTAGES = [
    Fault(name=f"MLflow {mood}", inject=partial(_disturb, lambda ground: ground.tracking, mood, WHOLE_S), fits=_has_server)
    for mood in MOODS
]
STORE_OUTAGES = [
    Fault(name=f"S3 {mood}", inject=partial(_disturb, lambda ground: ground.store, mood, STORE_S), fits=_has_store)
    for mood in MOODS
]
