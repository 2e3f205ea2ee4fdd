"""Six broken set-ups, each real, and what the doctor says of them: the problem, its place and the hint.

    python -m tests.acceptance.doctor            needs root, for mount namespaces, and a package index, for an older Ray

Shown: a node with another storage, a node whose storage is read-only, a node without data, a tracking server that is down, a
key that the object store refuses, a cluster that runs an older Ray. Every one is named with its node or address, and ends with
exit 3; but the node without data is well, since a run ships it the images.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import venv
from pathlib import Path
from typing import Any

from tests.support.cli import descendants, drive_sweep, wait_for
from tests.support.faulty_nodes import broken_cluster
from tests.support.ray_nodes import free_ports
from tests.support.s3_server import BUCKET, s3_server

DEAD_SERVER = "http://127.0.0.1:9"
OLDER_RAY = "ray==2.59.0"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        with broken_cluster(root) as broken:
            answer = drive_sweep(
                "doctor",
                *broken.options(root),
                "--tracking-uri",
                DEAD_SERVER,
                "--json",
                expect=3,
                timeout_s=900,
                environment=broken.nodes.environment,
            )
            checks = json.loads(answer.stdout)
            show("storage not shared", one(checks, "storage", broken.unshared.address))
            show("storage read-only", one(checks, "storage", broken.read_only.address))
            (served,) = [
                check for check in checks if check["check"] == "data" and broken.without_data.address in check["message"]
            ]
            assert served["ok"], served
            print(f"data missing on a node:\n    {served['message']}")
            show("tracking server down", one(checks, "tracking", DEAD_SERVER))
            assert all(check["ok"] for check in checks if broken.well.address in check["message"]), checks
            print(f"all of these in one call of {answer.seconds:.0f} s; the fourth node is well", flush=True)
        bad_key(root)
        older_ray(root)


def bad_key(root: Path) -> None:
    """An object store that checks keys, asked with one that may do nothing, and with one that it has never seen."""
    with s3_server(root) as store, store.checking_keys() as nobody:
        unknown = {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN", "AWS_SECRET_ACCESS_KEY": "x"}
        for title, key in (("S3 key without rights", nobody), ("S3 key that is wrong", unknown)):
            place = ["--storage", f"s3://{BUCKET}/runs", "--tracking-uri", DEAD_SERVER]
            environment = store.environment | key
            answer = drive_sweep("doctor", "digits", *place, "--json", expect=3, environment=environment)
            show(title, one(json.loads(answer.stdout), "storage", f"s3://{BUCKET}/runs"))


def older_ray(root: Path) -> None:
    """The doctor, and a sweep, on a head of an older Ray."""
    folder = root / "older"
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", OLDER_RAY], check=True)
    address = f"127.0.0.2:{free_ports(1)[0]}"
    port = address.rpartition(":")[2]
    command = [str(folder / "bin" / "ray"), "start", "--head", "--block", "--num-cpus=1", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.2", "--include-dashboard=false", "--disable-usage-stats"]
    command += ["--object-store-memory=80000000", f"--temp-dir={root}/o"]
    environment = {"RAY_AUTH_MODE": "disabled"}
    log = root / "head.log"
    with open(log, "w") as output:
        head = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True)
    try:
        wait_for(lambda: "Ray runtime started" in log.read_text())
        answer = drive_sweep(
            "doctor", "digits", "--storage", root / "s", "--address", address, "--json", expect=3, environment=environment
        )
        show("older Ray on the cluster", one(json.loads(answer.stdout), "cluster", address))
        answer = drive_sweep(
            "run", "digits", "--storage", root / "s", "--address", address, "--quiet", expect=3, environment=environment
        )
        print(f"run says: {answer.stderr.strip()}")
    finally:
        for pid in [*descendants(head.pid), head.pid]:
            subprocess.run(["kill", "-9", str(pid)], check=False)
        head.wait()


def one(checks: list[dict[str, Any]], name: str, place: str) -> dict[str, Any]:
    """The one failed check of this name that names the place."""
    (result,) = [check for check in checks if check["check"] == name and place in check["message"] and not check["ok"]]
    assert result["way_out"], result
    return result


def show(title: str, check: dict[str, Any]) -> None:
    print(f"{title}:\n    {check['message']}\n    -> {check['way_out']}", flush=True)


if __name__ == "__main__":
    main()
