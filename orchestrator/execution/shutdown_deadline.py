"""Forces the driver to exit a fixed time after SIGINT, SIGTERM or SIGHUP, even if storage, MLflow or Ray hangs.

Cluster schedulers follow up with SIGKILL; the next run restores what was not written.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

EXIT_TIMEOUT_S = 18.0


def exit_after_deadline(number: int) -> None:
    """Ends the process EXIT_TIMEOUT_S after signal `number`, unless it has exited by then."""
    threading.Thread(target=_exit_later, args=(number,), name="shutdown deadline", daemon=True).start()


def _exit_later(number: int) -> None:
    time.sleep(EXIT_TIMEOUT_S)
    message = "drive-sweep: the storage or the tracking server does not answer; exiting without it, `resume` continues"
    with suppress(OSError):  # the terminal may be gone
        print(message, file=sys.stderr, flush=True)
    os._exit(128 + number)
