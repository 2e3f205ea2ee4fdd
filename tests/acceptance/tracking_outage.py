"""The digits sweep with its tracking server up, and with the server down from beginning to end and `sync` afterwards.

    python -m tests.acceptance.tracking_outage

Shown: the sweep without server finishes; after `sync` MLflow holds the same runs, params, tags, points and models (costs and
times apart, which no two sweeps share); synced into an empty server the first sweep's records look exactly as they did live,
times included; `sync` again changes nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.ui_server import serve
from tests.support.cli import drive_sweep, free_port, status
from tests.support.mlflow_stores import Content, compare, timeless


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
        state = status("digits", down)
        assert state["finished"] == 50, state
        assert state["tracking_pending"] > 0, state
        print(f"server down: exit {answer.code}, 50 finished, {state['tracking_pending']} events pending", flush=True)
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


def content(uri: str, ids: bool = False) -> dict[str, Any]:
    return Content(TrackingTarget(uri=uri, experiment="drive-sweep", artifact_root=None)).plain(ids)


def children(plain: dict[str, Any]) -> dict[str, Any]:
    """Trials and trunks without the time at which a worker took them up, which the records do not hold."""
    runs = [{name: value for name, value in run.items() if name != "start"} for run in plain["runs"]]
    return {"runs": [run for run in runs if run["tags"]["drive.role"] != "sweep"], "models": plain["models"]}


if __name__ == "__main__":
    main()
