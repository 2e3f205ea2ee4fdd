"""Sweeps of DRIVE trials on Ray Tune.

`python -m orchestrator.cli` puts the current folder before all modules, where a file may be named like one of them; it goes
to the end. `trainables`, which may lie there too, is taken from where this package is before that.
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    import trainables  # noqa: F401

    sys.path.append(sys.path.pop(0))
