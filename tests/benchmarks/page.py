"""The page of a large sweep: `python -m tests.benchmarks.page [--seeds 4] [--keep FILE]`.

Prints its size, the seconds to make it, and with Chromium the seconds until all figures are drawn; medians of five.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from orchestrator.page.page import html_page
from orchestrator.reporting.sweep_results import sweep_results
from orchestrator.storage.factory import open_storage
from tests.support.browser import chromium, open_page, running_chromium
from tests.support.stored_sweeps import SIX_METHODS, smaller, stored_sweep

RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="127 trials each")
    parser.add_argument("--keep", type=Path, help="write the page there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        folder, state = stored_sweep(smaller(SIX_METHODS, seed=list(range(options.seeds))), open_storage("runs", create=True))
        reading, making = [], []
        for _ in range(RUNS):
            started = time.perf_counter()
            results = sweep_results(folder, state)
            read = time.perf_counter()
            page = html_page(results)
            reading.append(read - started)
            making.append(time.perf_counter() - read)
        file = (options.keep or Path("page.html")).absolute()
        file.write_text(page)
        print(f"{len(state.trials)} trials: {len(page.encode()) / 1e6:.2f} MB")
        print(f"records read and recommended in {statistics.median(reading):.2f} s")
        print(f"page made in {statistics.median(making):.2f} s")
        if chromium() is None:
            print("no Chromium: drawing was not measured")
            return
        with running_chromium() as browser:
            drawing = [open_page(browser, file.as_uri()).seconds_until_drawn for _ in range(RUNS)]
        print(f"drawn in {statistics.median(drawing):.2f} s")


if __name__ == "__main__":
    main()
