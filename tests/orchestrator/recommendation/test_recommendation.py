"""The recommendations of whole sweeps: which trials belong to a group, what is compared, and in which words."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator.recommendation.choice import Certainty
from orchestrator.recommendation.recommendation import recommendations, to_json
from orchestrator.recommendation.sentences import certainty_text, details, details_of_all, sentence
from tests.support.finished_sweeps import finished_sweep
from tests.support.sweep_files import BASE, load_text
from trainables.config.trial import TrialConfig

GRID = "search:\n  warmup_epochs: [0, 2, 4]\n  prune_iterations: [1, 10]\n  sparsity: [0.9, 0.98]\n  seed: [0, 1, 2]\n"
JITTER = (0.0, 0.0005, -0.0005)  # of the seeds, in every configuration another one


def metrics(config: TrialConfig) -> dict[str, float]:
    """The longer the warm-up the better, up to 2 epochs; ten iterations give a point; dense has 95 %."""
    if config.is_dense:
        return {"val/accuracy": 0.95 + 0.002 * config.seed, "test/accuracy": 0.2}
    jitter = JITTER[(config.seed + config.warmup_epochs + config.prune_iterations) % 3]
    value = 0.9 - (config.sparsity - 0.9) + 0.02 * min(2, config.warmup_epochs) + 0.01 * (config.prune_iterations == 10)
    return {
        "val/accuracy": value + jitter + 0.002 * config.seed,
        "test/accuracy": 0.99 if config.warmup_epochs == 0 else 0.1,  # which decides nothing
        "cost/total_dense_epochs": config.warmup_epochs + 3 + config.prune_iterations / 10,
        "model/compression_ratio": 10.0,
        "model/theoretical_speedup": 8.0,
    }


def test_each_group_has_its_own_recommendation() -> None:
    spec, state = finished_sweep(BASE + GRID, metrics)
    found = recommendations(spec, state)
    assert [one.name for one in found] == ["s0.9", "s0.98"]
    for one in found:
        assert dict(one.best.values)["prune_iterations"] == 10
        assert dict(one.best.values)["warmup_epochs"] in (2, 4)
        assert {state.trials[key].config["sparsity"] for key in one.keys} == {float(one.name[1:])}
        assert (len(one.results.configurations), len(one.best.trials), len(one.results.dense)) == (6, 3, 3)


def test_cheapest_that_is_not_worse_is_found() -> None:
    spec, state = finished_sweep(BASE + GRID, lambda config: metrics(config) | {"val/accuracy": value_of(config)})

    def values(one: object) -> tuple[int, int]:
        return one["warmup_epochs"], one["prune_iterations"]  # type: ignore[index]

    (one, _) = recommendations(spec, state)
    assert values(one.best.values) == (4, 10)
    assert one.cheapest is not None
    assert values(one.cheapest.values) == (2, 10)
    assert one.epochs == (8.0, 6.0)
    cheaper = "(-0.03 points in the mean, costs 6 instead of 8 epochs)"
    assert details(one)[1] == f"cheapest that is not shown to be worse: warm up 2 epochs, prune in 10 iterations {cheaper}"


def value_of(config: TrialConfig) -> float:
    return float(metrics(config)["val/accuracy"]) + 0.0003 * (config.warmup_epochs == 4)


def test_sentence_says_what_to_take_and_what_it_gives() -> None:
    spec, state = finished_sweep(BASE + GRID, lambda config: metrics(config) | {"val/accuracy": value_of(config)})
    one = recommendations(spec, state)[0]
    assert sentence(one).startswith("s0.9: warm up 4 epochs, prune in 10 iterations: val/accuracy 95.2")
    gave = "; its 3 seeds gave 95.23 %, 0.03 points better than dense (95 %: -0.09 points to +0.15 points)"
    assert sentence(one).endswith(f"{gave}, 10 times fewer parameters, 8 times fewer multiply-adds")
    assert certainty_text(one) == "settled: none of the 5 other configurations is better by more than 0.20 points (95 %)"


def test_gain_is_that_of_the_next_larger_value() -> None:
    def falling(config: TrialConfig) -> dict[str, float]:
        return metrics(config) | {"val/accuracy": 0.9 - 0.01 * config.warmup_epochs - 0.001 * config.prune_iterations}

    spec, state = finished_sweep(BASE + GRID, falling)
    one = recommendations(spec, state)[0]
    assert [(gain.axis, gain.value, gain.next_value) for gain in one.gains] == [
        ("warmup_epochs", 0, 2),
        ("prune_iterations", 1, 10),
    ]
    assert [gain.difference for gain in one.gains] == pytest.approx([-0.02, -0.009])
    assert details(one)[-2].startswith("2 warm-up epochs instead of 0: -2.00 points (95 %: ")


def test_one_seed_says_what_cannot_be_said() -> None:
    spec, state = finished_sweep(BASE + GRID.replace("[0, 1, 2]\n", "[0]\n"), metrics)
    one = recommendations(spec, state)[0]
    assert one.choice.certainty is Certainty.UNKNOWN
    assert "(1 seed, so its interval is not known)" in sentence(one)
    assert certainty_text(one) == "how sure that is cannot be said: each configuration has one seed"
    assert (to_json(one)["interval"], to_json(one)["more_seeds"]) == (None, None)


def test_unfinished_and_failed_trials_count_as_nothing() -> None:
    def partly(config: TrialConfig) -> dict[str, float] | None:
        return None if config.warmup_epochs == 4 or (config.seed == 2 and config.prune_iterations == 1) else metrics(config)

    spec, state = finished_sweep(BASE + GRID, partly)
    one = recommendations(spec, state)[0]
    assert (len(one.results.configurations), one.results.unfinished) == (4, 2)
    assert dict(one.best.values) == {"warmup_epochs": 2, "prune_iterations": 10}
    nothing = finished_sweep(BASE + GRID, lambda config: None)
    assert recommendations(*nothing) == []


def test_smaller_is_better_where_the_objective_says_so() -> None:
    def losses(config: TrialConfig) -> dict[str, float]:
        return metrics(config) | {"val/loss": 2 - metrics(config)["val/accuracy"]}

    spec, state = finished_sweep(BASE + "objective: val/loss\n" + GRID, losses)
    one = recommendations(spec, state)[0]
    assert dict(one.best.values)["prune_iterations"] == 10
    answer = to_json(one)
    assert answer["estimate"] == pytest.approx(1.05, abs=0.01)
    assert answer["interval"][0] < answer["estimate"] < answer["interval"][1]
    assert "val/loss 1.0" in sentence(one)
    assert "points" not in sentence(one)


def test_search_keeps_the_configuration_that_it_has_recommended() -> None:
    spec, state = finished_sweep(BASE + GRID, metrics)
    keys = frozenset(
        key for key, one in state.trials.items() if (one.config["warmup_epochs"], one.config["prune_iterations"]) == (0, 10)
    )
    first, _ = recommendations(spec, state, {"s0.9": keys})
    assert dict(first.best.values) == {"warmup_epochs": 0, "prune_iterations": 10}


def test_several_objectives_have_no_single_best() -> None:
    spec, state = finished_sweep(BASE + GRID, metrics)
    both = spec.model_copy(update={"objective": {"val/accuracy": "max", "model/flops": "min"}})
    assert recommendations(both, state) == []


def test_configurations_on_other_axes_are_named_by_their_keys() -> None:
    text = BASE + "sparsity: 0.9\nstrategy: {axes: [training.lr]}\nsearch: {training.lr: [0.1, 0.2], seed: [0, 1]}\n"
    spec, state = finished_sweep(text, lambda config: metrics(config) | {"val/accuracy": config.training.lr})
    (one,) = recommendations(spec, state)
    assert sentence(one).startswith("s0.9: training.lr 0.2: val/accuracy 20.00 %")


def test_automatic_numbers_are_those_that_the_seeds_chose() -> None:
    text = BASE + "sparsity: 0.9\nwarmup_epochs: auto\nsearch: {seed: [0, 1]}\n"
    spec, state = finished_sweep(text, lambda config: metrics(config) | {"warmup/chosen_epochs": 6.0 + config.seed})
    (one,) = recommendations(spec, state)
    assert sentence(one).startswith("s0.9: warm up 6 to 7 epochs: val/accuracy")


def test_json_is_plain_and_complete() -> None:
    spec, state = finished_sweep(BASE + GRID, metrics)
    answer = json.loads(json.dumps(to_json(recommendations(spec, state)[0])))
    assert answer["configuration"]["prune_iterations"] == 10
    assert answer["interval"][0] < answer["estimate"] < answer["interval"][1]
    assert answer["dense"]["times_smaller"] == 10.0
    assert answer["certainty"] in [one.value for one in Certainty]


def test_rivals_are_counted_in_words() -> None:
    spec, state = finished_sweep(BASE + GRID, metrics)
    one = recommendations(spec, state)[0]
    rivals = {1: 0.004, 2: 0.01}
    unclear = replace(one, choice=replace(one.choice, certainty=Certainty.MORE_SEEDS, rivals=rivals, more_seeds=3))
    at_most = "2 other configurations may be better, by at most 1.00 points (95 %)"
    assert certainty_text(unclear) == f"needs about 3 more seeds: {at_most}"
    lost = replace(unclear, choice=replace(unclear.choice, certainty=Certainty.UNCLEAR, more_seeds=None))
    assert certainty_text(lost) == f"not settled: {at_most}"


def test_trial_that_two_groups_share_counts_in_both() -> None:
    axes = "rewind: [none, init], sanity.reinitialize: [true, false], seed: [0, 1]"
    text = BASE + f"sparsity: 0.9\nwarmup_epochs: 1\nstrategy: {{axes: [sanity.reinitialize]}}\nsearch: {{{axes}}}\n"
    spec, state = finished_sweep(text, metrics)
    assert [len(one.results.configurations) for one in recommendations(spec, state)] == [2, 2]


def test_indifference_is_in_the_unit_of_the_objective() -> None:
    seeds = GRID.replace("  seed: [0, 1, 2]\n", "")
    for objective, expected in (("val/accuracy", 0.003), ("val/loss", 0.3)):
        text = BASE + f"objective: {objective}\nseeds: {{first: 3, most: 3, indifference: 0.3}}\n" + seeds
        spec = finished_sweep(BASE + f"objective: {objective}\n" + GRID, metrics)[0]
        state = finished_sweep(BASE + GRID, lambda config: metrics(config) | {"val/loss": 1.0})[1]
        staged = spec.model_copy(update={"seeds": load_text(text).seeds})
        assert recommendations(staged, state)[0].indifference == pytest.approx(expected)


def test_keys_that_a_method_does_not_use_are_not_recommended() -> None:
    spec, state = finished_sweep(f"{BASE}method: [drive, imp, random]\n{GRID}", metrics)
    found = {one.name: one for one in recommendations(spec, state)}
    assert set(found["drive-s0.9"].best.values) == {"warmup_epochs", "prune_iterations"}
    for method in ("imp", "random"):
        assert list(to_json(found[f"{method}-s0.9"])["configuration"]) == ["warmup_epochs"]
    assert ": warm up 2 epochs, prune in 11 levels: val/accuracy " in sentence(found["imp-s0.9"])
    assert ": warm up 2 epochs: val/accuracy " in sentence(found["random-s0.9"])


def test_other_axes_stand_after_warm_up_and_iterations() -> None:
    axes = "strategy: {axes: [training.lr, warmup_epochs]}\nsearch: {training.lr: [0.1, 0.2], warmup_epochs: [1, 2]}\n"
    spec, state = finished_sweep(f"{BASE}sparsity: 0.9\n{axes}", metrics)
    assert ": warm up 2 epochs, training.lr 0.1: val/accuracy " in sentence(recommendations(spec, state)[0])


@pytest.mark.parametrize(
    ("objective", "values", "seed"),
    [
        ("", {"val/accuracy": (0.8, 0.9, 0.9), "test/accuracy": (0.99, 0.1, 0.1)}, 1),
        ("objective: {val/loss: min}\n", {"val/accuracy": (0.8, 0.7, 0.9), "val/loss": (0.1, 0.2, 0.3)}, 2),
        ("objective: {train/loss: min}\n", {"train/loss": (0.3, 0.1, 0.2)}, 1),
    ],
)
def test_best_seed_is_that_of_validation_or_else_of_the_objective(
    objective: str, values: dict[str, tuple[float, ...]], seed: int
) -> None:
    text = f"{BASE}{objective}search:\n  warmup_epochs: [2]\n  seed: [0, 1, 2]\n"
    spec, state = finished_sweep(text, lambda config: {name: each[config.seed] for name, each in values.items()})
    (one,) = recommendations(spec, state)
    assert one.best_trial.config["seed"] == seed


def test_of_several_groups_those_without_a_choice_have_no_details() -> None:
    spec, state = finished_sweep(BASE + "search:\n  sparsity: [0.9, 0.98]\n  seed: [0, 1, 2]\n", metrics)
    alone = recommendations(spec, state)
    assert details_of_all(alone) == [[], []]
    assert details_of_all(alone[:1]) == [["there is no other configuration to compare it with"]]
    compared = recommendations(*finished_sweep(BASE + GRID, metrics))
    assert details_of_all(compared) == [details(one) for one in compared]


def test_a_reconstruction_is_named_as_one() -> None:
    lines = "granularity: channel\nmethod: [snip, consensus]\nsearch:\n  sparsity: [0.9]\n  seed: [0, 1, 2]\n"
    spec, state = finished_sweep(BASE + lines, metrics)
    named = [sentence(one).partition(": ")[0] for one in recommendations(spec, state)]
    assert named == ["snip-s0.9", "consensus-s0.9 (reconstruction)"]
