"""The digits sweep with its tracking server up, and with the server down from beginning to end and `sync` afterwards.

    python -m tests.proofs.outage

Shown: the sweep without server finishes; after `sync` MLflow holds the same runs, params, tags, points and models (costs and
times apart, which no two sweeps share); synced into an empty server the first sweep's records look exactly as they did live,
times included; `sync` again changes nothing.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

from orchestrator.mlflow_client import TrackingTarget
from orchestrator.ui import serve
from tests.mlflow_stores import Content
from tests.sweeps import drive_sweep, status

TIMED = ("start", "end", "inputs")
TAGS_OF_TIME = ("drive.projection", "mlflow.user", "mlflow.source.name", "drive.artifact.")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        up, down = root / "up", root / "down"
        with serve(server_at(root / "server-up"), port=0) as uri:
            drive_sweep("run", "digits", "--storage", up, "--tracking-uri", uri, "--quiet", timeout_s=1800)
            live = content(uri)
        print(f"server up: {len(live['runs'])} runs, {len(live['models'])} models", flush=True)

        port = free_port()
        uri = f"http://127.0.0.1:{port}"
        answer = drive_sweep("run", "digits", "--storage", down, "--tracking-uri", uri, "--quiet", timeout_s=1800)
        told = status("digits", down)
        assert told["finished"] == 50, told
        assert told["tracking_pending"] > 0, told
        print(f"server down: exit {answer.code}, 50 finished, {told['tracking_pending']} events pending", flush=True)
        with serve(server_at(root / "server-down"), port=port):
            drive_sweep("sync", "digits", "--storage", down)
            late = content(uri)
            drive_sweep("sync", "digits", "--storage", down)
            again = content(uri, ids=True)
            drive_sweep("sync", "digits", "--storage", down)
            assert content(uri, ids=True) == again, "sync changed something"
        assert status("digits", down)["tracking_pending"] == 0
        compare(timeless(live), timeless(late))
        print("after sync: the same runs, params, tags, points and models; sync again changes nothing", flush=True)

        with serve(server_at(root / "server-new"), port=0) as uri:
            drive_sweep("sync", "digits", "--storage", up, "--tracking-uri", uri)
            compare(children(live), children(content(uri)))
        print("the first sweep's records synced into an empty server: as they were live, times of points included")


def server_at(folder: Path) -> TrackingTarget:
    folder.mkdir()
    return TrackingTarget(
        uri=f"sqlite:///{folder}/mlflow.db", experiment="drive-sweep", artifact_root=str(folder / "artifacts")
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def content(uri: str, ids: bool = False) -> dict[str, Any]:
    return Content(TrackingTarget(uri=uri, experiment="drive-sweep", artifact_root=None)).plain(ids)


def timeless(plain: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between any two sweeps: times, costs and what is derived from them."""
    runs = []
    for run in plain["runs"]:
        kept = {name: value for name, value in run.items() if name not in TIMED}
        kept["points"] = [(key, step, value) for key, step, value, _ in run["points"] if not key.startswith("cost/")]
        kept["tags"] = {name: value for name, value in run["tags"].items() if not name.startswith(TAGS_OF_TIME)}
        runs.append(kept)
    models = []
    for model in plain["models"]:
        kept = dict(model)
        kept["metrics"] = [(key, step, value) for key, step, value, *_ in model["metrics"]]
        models.append(kept)
    return {"runs": runs, "models": models}


def children(plain: dict[str, Any]) -> dict[str, Any]:
    """Trials and trunks without the time at which a worker took them up, which the records do not hold."""
    runs = [{name: value for name, value in run.items() if name != "start"} for run in plain["runs"]]
    return {"runs": [run for run in runs if run["tags"]["drive.role"] != "sweep"], "models": plain["models"]}


def compare(first: dict[str, Any], second: dict[str, Any]) -> None:
    for kind in ("runs", "models"):
        assert len(first[kind]) == len(second[kind]), f"{len(first[kind])} {kind} against {len(second[kind])}"
        for one, other in zip(first[kind], second[kind], strict=True):
            different = [name for name in one if one[name] != other[name]]
            assert not different, f"{one['name']}: {different[0]}: {one[different[0]]} != {other[different[0]]}"


if __name__ == "__main__":
    main()
