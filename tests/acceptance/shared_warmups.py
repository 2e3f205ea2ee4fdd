"""A sweep with shared and with unshared warm-ups, and with snapshots deleted and truncated in mid-sweep.

    python -m tests.acceptance.shared_warmups [--sweep digits] [--set KEY=VALUE]

Shown: every model_sha256 and metric point equal; warm-up epochs trained = the longest of each warm-up key; damage is healed
and told in the log.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.acceptance.sweep_options import add_sweep_options, sweep_of
from tests.support.cli import curves, digests, drive_sweep, start, status, wait_for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sweep_options(parser)
    sweep, name, settings = sweep_of(parser.parse_args())
    with tempfile.TemporaryDirectory() as scratch:
        shared, unshared, damaged = (Path(scratch, name) for name in ("shared", "unshared", "damaged"))
        first = drive_sweep("run", sweep, *settings, "--storage", shared, "--quiet", timeout_s=3600)
        second = drive_sweep(
            "run", sweep, *settings, "--storage", unshared, "--quiet", "--set", "share_warmups=false", timeout_s=3600
        )
        assert digests(name, shared) == digests(name, unshared)
        assert curves(shared) == curves(unshared)
        warmups = [(one["epochs"], one["trained_epochs"]) for one in status(name, shared)["warmups"]]
        assert all(longest == trained for longest, trained in warmups)
        count = len(digests(name, shared))
        print(f"shared {first.seconds:.0f} s, unshared {second.seconds:.0f} s: {count} digests and all points equal")
        print(f"warm-ups (longest, trained): {warmups}", flush=True)

        process = start("run", sweep, *settings, "--storage", damaged)
        expected = len(list(shared.glob("warmups/*/epoch-*")))
        snapshots = wait_for(lambda: len(files := sorted(damaged.glob("warmups/*/epoch-*"))) == expected and files)
        snapshots[-1].write_bytes(snapshots[-1].read_bytes()[:-1000])
        print(f"truncated {snapshots[-1].name}")
        if expected > 1:
            snapshots[0].unlink()
            print(f"deleted {snapshots[0].name}")
        output, _ = process.communicate(timeout=3600)
        assert process.returncode == 0, output
        assert digests(name, shared) == digests(name, damaged)
        assert curves(shared) == curves(damaged)
        log = drive_sweep("logs", name, "--storage", damaged).stdout
        lines = [line for line in log.splitlines() if "damaged" in line]
        assert lines, log
        print("healed: all digests and points equal; the log tells:")
        print("\n".join(lines))


if __name__ == "__main__":
    main()
