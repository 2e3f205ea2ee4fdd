"""The guarantees of checks.py on this device."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from tests.gpu.checks import CHECKS
from tests.gpu.rows import Bench, Row, SkippedError, checked, failed, skipped
from trainables.wording import first_line


def measure(bench: Bench) -> Iterator[Row]:
    for name, check in CHECKS.items():
        label, folder = name.replace("_", " "), bench.folder / name
        folder.mkdir()
        try:
            yield checked(label, True, "the guarantee", check(bench.device, folder))
        except SkippedError as reason:
            yield skipped(label, str(reason))
        except Exception as error:
            traceback.print_exc()
            yield failed(label, first_line(error))
