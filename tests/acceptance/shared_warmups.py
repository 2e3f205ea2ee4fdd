"""The digits sweep with shared and with unshared warm-ups, and with snapshots deleted and truncated in mid-sweep.

    python -m tests.acceptance.shared_warmups

Shown: every model_sha256 and metric point equal; warm-up epochs trained = the longest of each warm-up key; damage is healed
and told in the log.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.cli import curves, digests, drive_sweep, start, status, wait_for


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        shared, unshared, damaged = (Path(scratch, name) for name in ("shared", "unshared", "damaged"))
        first = drive_sweep("run", "digits", "--storage", shared, "--quiet", timeout_s=1800)
        second = drive_sweep("run", "digits", "--storage", unshared, "--quiet", "--set", "share_warmups=false", timeout_s=1800)
        assert digests("digits", shared) == digests("digits", unshared)
        assert curves(shared) == curves(unshared)
        warmups = [(one["epochs"], one["trained_epochs"]) for one in status("digits", shared)["warmups"]]
        assert all(longest == trained for longest, trained in warmups)
        print(f"shared {first.seconds:.0f} s, unshared {second.seconds:.0f} s: 50 digests and all points equal")
        print(f"warm-ups (longest, trained): {warmups}", flush=True)

        process = start("run", "digits", "--storage", damaged)
        snapshots = wait_for(lambda: len(files := sorted(damaged.glob("warmups/*/epoch-*"))) == 6 and files)
        snapshots[0].unlink()
        snapshots[2].write_bytes(snapshots[2].read_bytes()[:-1000])
        print(f"deleted {snapshots[0].name}, truncated {snapshots[2].name}")
        output, _ = process.communicate(timeout=1800)
        assert process.returncode == 0, output
        assert digests("digits", shared) == digests("digits", damaged)
        assert curves(shared) == curves(damaged)
        log = drive_sweep("logs", "digits", "--storage", damaged).stdout
        lines = [line for line in log.splitlines() if "damaged" in line]
        assert lines, log
        print("healed: all digests and points equal; the log tells:")
        print("\n".join(lines))


if __name__ == "__main__":
    main()
