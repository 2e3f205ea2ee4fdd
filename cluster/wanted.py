"""Prints what the project needs on a cluster, one requirement a line; pip takes the versions from requirements.txt.

python cluster/wanted.py pyproject.toml
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["cluster"]))
