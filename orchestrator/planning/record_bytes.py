"""The bytes of a trial's small files and of MLflow's copies, as measured on sweeps of digits.

Files count as the blocks of 4 KiB that they take. MLflow counts only where its database and artifacts lie in the storage.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainables.config.trial import TrialConfig

BLOCK = 4096
POINT = 90  # bytes of a line of metrics.jsonl
TRIAL_FILES = 5  # attempt, config, metrics, model, result
SMALL_FILES = 3 * BLOCK  # attempt, config, result
EPOCH_POINTS, ROUND_POINTS, MASK_POINTS, LAST_POINTS = 4, 6, 6, 24
SWEEP, SWEEP_FILES, SWEEP_TRIAL = (
    200_000,
    12,
    12_000,
)  # folder of the sweep: its state, thrice while it is written, and other files

DATABASE_FILE, DATABASE_FILES = "mlflow.db", 4
DATABASE, JOURNAL = 1_000_000, 4_200_000  # of MLflow: the empty database; what SQLite writes beside it
RUN, STORED_POINT = 12_000, 310  # in the database
MODEL, MODEL_FILES = 210_000, 50  # of a logged model, besides the model itself: code and environment
RUN_ARTIFACTS, RUN_FILES = 16_000, 4  # of a trial's run
REPORT, REPORT_FILES = 2_500_000, 60  # of the sweep's run: page, figures, tables


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Bytes and files."""

    bytes: int = 0
    files: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(bytes=self.bytes + other.bytes, files=self.files + other.files)


NOTHING = Written()


def trial_points(config: TrialConfig) -> int:
    """About how many metric points a trial has."""
    pruning = config.pruning.course
    epochs = max(config.warmup_lengths, default=0) + config.sparse_epochs
    per_epoch = EPOCH_POINTS + (MASK_POINTS if pruning.is_during_training else 0)
    return epochs * per_epoch + config.rounds * ROUND_POINTS + LAST_POINTS


def records_of(config: TrialConfig) -> Written:
    """The small files of a trial; its model and checkpoint count apart."""
    return Written(bytes=SMALL_FILES + in_blocks(POINT * trial_points(config)) + SWEEP_TRIAL, files=TRIAL_FILES)


def run_of(config: TrialConfig, model: float, *, logs_model: bool) -> Written:
    """A trial's run in MLflow.

    Args:
        model: bytes of the trial's model.
    """
    run = Written(bytes=RUN + STORED_POINT * trial_points(config) + RUN_ARTIFACTS, files=RUN_FILES)
    return run + Written(bytes=MODEL + in_blocks(model), files=MODEL_FILES) if logs_model else run


def in_blocks(size: float) -> int:
    """The size of a file on the disk."""
    return -(-round(size) // BLOCK) * BLOCK
