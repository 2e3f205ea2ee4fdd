"""Chaos: rounds of a small sweep under random faults at random moments, after which nothing may be missing or doubled.

    python -m tests.chaos [--rounds 200] [--seed 0] [--storage folder|s3|both] [--keep DIR] [--minutes N]
    python -m tests.chaos --seed 0 --round 17          (one round again)

Each round has a fresh storage and a sweep with a search, early stopping, several seeds, shared warm-ups and the model registry.
One to three faults of faults/table.py meet it. Then a user's answer: `doctor --fix` where files were damaged, `resume` until it
exits with 0, `sync` if MLflow lacks something. checks.py says what must hold afterwards.

Exit code 0 if it held in all rounds, else 1; the folder of a failed round is kept.
"""
