"""The project's own tests, benchmarks and acceptance tests."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of the project
