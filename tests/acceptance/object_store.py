"""The digits sweep on an object store: killed, resumed, the same bits as in a folder; and what it asks the store for.

    python -m tests.acceptance.object_store [--set KEY=VALUE ...]

Shown at the end: every model_sha256 and metric point equal to those of a sweep in a folder; the requests, in all and per trial.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from pathlib import Path

from mlflow import MlflowClient

from tests.support.cli import curves, digests, drive_sweep, kill_all, start, status, wait_for
from tests.support.s3_server import BUCKET, ObjectStore, s3_server

FILE = re.compile(r"/runs/(trials/[0-9a-f]{16}|[a-z]+)(?:/[^/]+)*?/([^/?]+)$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], help="passed on, for a shorter sweep")
    settings = [word for one in parser.parse_args().set for word in ("--set", one)]
    with tempfile.TemporaryDirectory() as scratch, s3_server(Path(scratch)) as store:
        folder, bucket = Path(scratch, "runs"), f"s3://{BUCKET}/runs"
        answer = drive_sweep("run", "digits", "--storage", folder, "--quiet", *settings, timeout_s=3600)
        print(f"in a folder: {status('digits', folder)['finished']} finished in {answer.seconds:.0f} s", flush=True)

        database = f"sqlite:///{scratch}/mlflow.db"
        MlflowClient(database).create_experiment("drive-sweep", f"{scratch}/artifacts")
        place = ["--storage", bucket, "--tracking-uri", database, *settings]
        process = start("run", "digits", *place, environment=store.environment)
        total = wait_for(lambda: trials(store, bucket), timeout_s=600, every_s=2)
        wait_for(lambda: len(store.finished("runs")) >= total // 2, timeout_s=1800, every_s=2)
        kill_all(process)
        killed_at, asked = len(store.finished("runs")), Counter(method for method, _ in store.requests())
        print(f"killed when {killed_at} of {total} had finished, after {describe(asked)}", flush=True)
        since = store.now
        answer = drive_sweep("resume", "digits", "--storage", bucket, "--quiet", environment=store.environment, timeout_s=3600)
        print(f"resumed: the other {total - killed_at} finished in {answer.seconds:.0f} s", flush=True)
        show_requests(store.requests(since), total - killed_at)

        assert status("digits", bucket, store.environment)["finished"] == total
        assert digests("digits", bucket, store.environment) == digests("digits", folder), "a model differs"
        assert store.curves("runs") == curves(folder), "a metric point differs"
        print(f"{total} finished; all digests and points equal to those in a folder")


def trials(store: ObjectStore, bucket: str) -> int:
    """Trials of the sweep; 0 before it has begun."""
    if "runs/sweeps/digits/state.json" not in store.objects("runs/sweeps"):
        return 0
    return int(status("digits", bucket, store.environment)["total"])


def show_requests(requests: list[tuple[str, str]], finished: int) -> None:
    """Per finished trial: requests of each kind, of all processes together and below the trials' own folders."""
    everything, of_trials, puts = Counter[str](), Counter[str](), Counter[str]()
    for method, path in requests:
        everything[method] += 1
        match = FILE.search(path)
        if match and match[1].startswith("trials/"):
            of_trials[method] += 1
            puts[match[2]] += method == "PUT"
    print(f"requests of the resumed part: {describe(everything)}")
    print(f"  per trial, all processes:   {describe(everything, finished)}")
    print(f"  per trial, in its folder:   {describe(of_trials, finished)}")
    print(f"  PUTs in a trial's folder:   {describe(puts, finished)}")


def describe(counts: Counter[str], share: int = 1) -> str:
    return ", ".join(f"{count / share:.{0 if share == 1 else 1}f} {name}" for name, count in counts.most_common() if count)


if __name__ == "__main__":
    main()
