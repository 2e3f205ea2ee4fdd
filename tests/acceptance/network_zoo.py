"""Every network of the zoo with every method: right, refused before training, or anything else (0).

    python -m tests.acceptance.network_zoo [NAME...]     # of networks; all without one

Prints one row a network, one letter a method: . right, r refused before training, X anything else; then every refusal's rule
and every fault.
"""

from __future__ import annotations

import sys
import time
from collections import Counter

import torch

from tests.support.network_zoo import ZOO
from tests.support.zoo_trials import METHODS_OF_WEIGHTS, Outcome, outcome

LETTERS = {"right": ".", "refused": "r", "failed": "X"}


def main(names: list[str]) -> int:
    torch.set_num_threads(1)
    started_at, outcomes = time.monotonic(), list[Outcome]()
    print(" " * 34, *(method[:4].ljust(4) for method in METHODS_OF_WEIGHTS))
    for name in names or ZOO:
        row = [outcome(name, method) for method in METHODS_OF_WEIGHTS]
        outcomes += row
        print(name.ljust(34), *(LETTERS[one.kind].ljust(4) for one in row), flush=True)
    for kind in ("refused", "failed"):
        messages: dict[tuple[str, str], list[str]] = {}
        for one in outcomes:
            if one.kind == kind:
                messages.setdefault((one.network, one.message), []).append(one.method)
        for (network, message), methods in messages.items():
            print(f"{kind}: {network} [{', '.join(methods)}]: {message[:300]}")
    counts = Counter(one.kind for one in outcomes)
    print(f"{len(outcomes)} combinations of {len(names or ZOO)} networks and {len(METHODS_OF_WEIGHTS)} methods in", end=" ")
    print(
        f"{time.monotonic() - started_at:.0f} s: {counts['right']} right, {counts['refused']} refused before training,", end=" "
    )
    print(f"{counts['failed']} anything else")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
