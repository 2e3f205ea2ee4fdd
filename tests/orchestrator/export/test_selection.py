"""Which trial is exported: chosen by validation, never by test accuracy; and what is refused, with what to type instead."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from orchestrator.command_line import note_options
from orchestrator.commands.parser import make_parser
from orchestrator.errors import SetupError, UserError
from orchestrator.export.selection import Selection, over_seeds, select_trial
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.layout import trial_file
from orchestrator.storage.local import LocalStorage
from tests.support.finished_sweeps import finished_sweep
from tests.support.trials import write_result
from trainables.config.trial import TrialConfig

TEXT = """\
name: x
dataset: {name: digits}
model: convnet
method: METHODS
search: {warmup_epochs: [1, 2], sparsity: SPARSITIES, seed: [0, 1, 2]}
OTHERS
"""
OPTIONS = ("--format", "torch", "--out", "there")
VALIDATION = {0: 0.80, 1: 0.82, 2: 0.81}
TEST = {0: 0.95, 1: 0.70, 2: 0.90}

Make = Callable[..., SweepFolder]


def accuracies(config: TrialConfig) -> Mapping[str, float] | None:
    """Two warm-up epochs are better than one; by test accuracy another seed would be chosen."""
    better = 0.1 * (config.warmup_epochs == 2)
    return {"val/accuracy": VALIDATION[config.seed] + better, "test/accuracy": TEST[config.seed]}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A function that writes the records of a sweep."""
    monkeypatch.chdir(tmp_path)

    def of(
        metrics: Callable[[TrialConfig], Mapping[str, float] | None] = accuracies,
        methods: str = "drive",
        sparsities: str = "[0.9]",
        others: str = "",
    ) -> SweepFolder:
        text = TEXT.replace("METHODS", methods).replace("SPARSITIES", sparsities).replace("OTHERS", others)
        spec, state = finished_sweep(text, metrics)
        storage = LocalStorage(str(tmp_path / "elsewhere"))
        folder = SweepFolder(storage, spec.name)
        for trial in state.trials.values():
            if trial.state == "finished":
                write_result(storage, trial.key, {"metrics": trial.metrics, "model_sha256": "m"})
        folder.write_state(state)
        storage.write_json(folder.file("trials.json"), {})
        storage.write_json(folder.file("spec.json"), spec.model_dump(mode="json"))
        return folder

    return of


def select(folder: SweepFolder, key: str | None = None, sparsity: float | None = None) -> Selection:
    return select_trial(folder, key, sparsity, OPTIONS)


def trial_of(folder: SweepFolder, **fields: object) -> str:
    """The key of the first trial whose configuration has these values."""
    state = folder.read_state()
    assert state is not None
    return next(key for key, trial in state.trials.items() if all(trial.config[name] == fields[name] for name in fields))


def refusal(folder: SweepFolder, key: str | None = None, sparsity: float | None = None) -> UserError:
    with pytest.raises(UserError) as error:
        select(folder, key, sparsity)
    return error.value


def test_seed_is_chosen_by_validation_and_not_by_test_accuracy(make: Make) -> None:
    chosen = select(make())
    assert (chosen.trial.config["warmup_epochs"], chosen.trial.config["seed"]) == (2, 1)
    assert chosen.result["metrics"]["test/accuracy"] == min(TEST.values())
    assert "the best one by validation accuracy of the 3 seeds" in chosen.reason
    assert chosen.recommendation is not None
    assert chosen.configuration is chosen.recommendation.best
    assert over_seeds(chosen, "val/accuracy") == pytest.approx((0.91, 0.01, 3))


def test_of_equal_seeds_the_lowest_is_chosen(make: Make) -> None:
    chosen = select(make(lambda config: {"val/accuracy": 0.5, "test/accuracy": TEST[config.seed]}))
    assert chosen.trial.config["seed"] == 0


def test_a_single_finished_seed_has_no_deviation(make: Make) -> None:
    chosen = select(make(lambda config: accuracies(config) if (config.seed, config.warmup_epochs) == (2, 2) else None))
    assert chosen.reason.startswith("the only finished trial of the configuration")
    mean, deviation, seeds = over_seeds(chosen, "val/accuracy") or (0.0, 0.0, 0)
    assert (round(mean, 9), deviation, seeds) == (0.91, None, 1)
    assert over_seeds(chosen, "no/such") is None


@pytest.mark.parametrize(
    ("methods", "sparsities", "options"),
    [
        ("drive", "[0.8, 0.9]", {"s0.8": "--sparsity", "s0.9": "--sparsity"}),
        ("[drive, snip]", "[0.9]", {"drive-s0.9": "--trial", "snip-s0.9": "--trial"}),
    ],
)
def test_several_groups_are_listed_with_commands_that_choose_one(
    methods: str, sparsities: str, options: dict[str, str], make: Make
) -> None:
    folder = make(methods=methods, sparsities=sparsities)
    note_options(make_parser().parse_args(["export", "x", "--storage", folder.storage.root, *OPTIONS]))
    error = refusal(folder)
    assert (error.code, error.message) == ("group-ambiguous", "sweep 'x' has a recommendation for each of 2 groups")
    lines = dict(line.strip().split(": ", 1) for line in error.hint.splitlines()[1:])
    assert lines.keys() == options.keys()
    for group, line in lines.items():
        parsed = make_parser().parse_args(shlex.split(line)[1:])
        assert options[group] in shlex.split(line)
        assert (parsed.name, parsed.format, parsed.out, parsed.storage) == ("x", "torch", "there", folder.storage.root)
        chosen = select(folder, parsed.trial, parsed.sparsity)
        assert (chosen.recommendation and chosen.recommendation.name, chosen.trial.config["seed"]) == (group, 1)


def test_sparsity_selects_among_groups_and_must_be_one_of_them(make: Make) -> None:
    folder = make(sparsities="[0.8, 0.9]")
    assert select(folder, sparsity=0.8).trial.config["sparsity"] == 0.8
    error = refusal(folder, sparsity=0.95)
    assert (error.code, error.hint) == ("group-not-found", "there is 0.8, 0.9")


def test_a_key_selects_any_finished_trial(make: Make) -> None:
    folder = make()
    chosen = select(folder, trial_of(folder, warmup_epochs=1, seed=2, method="drive"))
    assert (chosen.trial.config["warmup_epochs"], chosen.reason) == (1, "chosen by its key")
    assert chosen.recommendation is None
    assert over_seeds(chosen, "val/accuracy") == pytest.approx((0.81, 0.01, 3))
    dense = select(folder, trial_of(folder, method="dense"))
    assert dense.configuration is None
    assert over_seeds(dense, "val/accuracy") is None


def test_a_key_selects_where_nothing_is_recommended(make: Make) -> None:
    folder = make(others="objective: {val/accuracy: max, model/bytes: min}")
    error = refusal(folder)
    assert error.code == "nothing-recommended"
    assert "`drive-sweep export x --trial KEY --format torch --out there" in error.hint
    assert select(folder, trial_of(folder, seed=0)).trial.config["seed"] == 0


def test_nothing_has_finished(make: Make) -> None:
    assert "no pruned trial has finished" in refusal(make(lambda config: None)).message


def test_keys_of_no_or_unfinished_trials_are_refused(make: Make) -> None:
    folder = make(lambda config: None if config.seed == 2 else accuracies(config))
    key = trial_of(folder, seed=0)
    assert refusal(folder, "0" * 16).code == "trial-not-found"
    error = refusal(folder, trial_of(folder, seed=2))
    assert (error.code, "must be a finished trial, got one that is waiting" in error.message) == ("trial-not-finished", True)
    assert refusal(folder, key, 0.9).message.startswith("--sparsity: must not go with --trial")


def test_damaged_records_are_refused_and_not_recommended(make: Make) -> None:
    folder = make()
    key = select(folder).trial.key
    file = trial_file(key, "result.json")
    folder.storage.write(file, (folder.storage.read(file) or b"").replace(b"0.70", b"0.71").replace(b"0.7", b"0.8"))
    assert select(folder).trial.key != key
    with pytest.raises(SetupError, match=r"result.json does not match its own SHA-256 .*; `drive-sweep resume x") as error:
        select(folder, key)
    assert error.value.code == "trial-damaged"
