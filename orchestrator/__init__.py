"""Sweeps of DRIVE trials on Ray Tune. Public names are imported on first use, so that importing the package stays light.

`python -m orchestrator.cli` puts the current folder before all modules, where a file may be named like one of them; it goes
to the end. `trainables`, which may lie there too, is taken from where this package is before that.
"""

import sys
from typing import TYPE_CHECKING

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    import trainables  # noqa: F401

    sys.path.append(sys.path.pop(0))

if TYPE_CHECKING:
    from orchestrator.api.running import run as run
    from orchestrator.api.sweep import Sweep as Sweep
    from orchestrator.api.sweep import load as load
    from orchestrator.errors import SweepError as SweepError

PUBLIC = {
    "load": "orchestrator.api.sweep",
    "run": "orchestrator.api.running",
    "Sweep": "orchestrator.api.sweep",
    "SweepError": "orchestrator.errors",
}


def __getattr__(name: str) -> object:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(PUBLIC[name]), name)
