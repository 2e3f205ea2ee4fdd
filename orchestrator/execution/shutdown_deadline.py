"""A driver that was told to end ends in time, whatever hangs: a storage, a tracking server, Ray, the interpreter's own end.

Whoever sends a signal kills before long, and with less warning. What is missing then the next run makes up.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

END_S = 18.0


def exit_after_deadline(number: int) -> None:
    """Ends the process END_S after signal `number`, unless it has ended by itself."""
    threading.Thread(target=_end, args=(number,), name="last resort", daemon=True).start()


def _end(number: int) -> None:
    time.sleep(END_S)
    message = "drive-sweep: the storage or the tracking server does not answer; ending without it, `resume` continues"
    with suppress(OSError):  # the terminal may be gone
        print(message, file=sys.stderr, flush=True)
    os._exit(128 + number)
