"""Names of metrics that the program reads itself; apart, so that `status` need not import the table of methods."""

from __future__ import annotations

CHOSEN_WARMUP, CHOSEN_ITERATIONS = "warmup/chosen_epochs", "prune/chosen_iterations"
