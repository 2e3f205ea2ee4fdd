"""Keys: which names follow from which configuration, for ever."""

from __future__ import annotations

import random
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from typing import Any

import pytest

from trainables.config import keys as keys_module
from trainables.config.counts import kept_count
from trainables.config.keys import canonical, from_canonical, trial_key, warmup_key
from trainables.config.lookup import is_option
from trainables.config.methods import METHODS, DriveConfig, GranetConfig
from trainables.config.options import Options
from trainables.config.trial import DatasetConfig, PrunableConfig, TrainingConfig, TrialConfig, WarmupConfig
from trainables.runtime.seeding import derived_seed

DATA = "0" * 32
FIRST_NUMERICS = {"data": 1, "models": 1, "scores": 1, "training": 1}


def digits(**changes: Any) -> TrialConfig:
    return replace(TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet"), **changes)


# Trials of earlier sweeps are found by these keys. If this fails, the canonical form or a default has changed: change it
# back and add an option instead. New entries may be added, the keys that are here may not.
STORED_KEYS: list[tuple[TrialConfig, str, str]] = [
    (digits(), "6a3f0d263fdf165a", "5edb42cee2465264"),
    (digits(seed=1), "01f7142ba976b7e9", "113dde22ced4f5f2"),
    (digits(warmup_epochs=4, prune_iterations=50, sparsity=0.95, seed=2), "eb6c0c4eca77db4f", "be27584f674a8b6d"),
    (
        digits(warmup_epochs=4, prune_iterations=50, sparsity=0.95, seed=2, options=DriveConfig(normalize="rank")),
        "031f13a8ce8b7083",
        "be27584f674a8b6d",
    ),
    (
        digits(sparsity=0.98, options=DriveConfig(magnitude=0, connection=1, convergence=0)),
        "30def6293b3fb252",
        "5edb42cee2465264",
    ),
    (
        digits(sparsity=0.9, options=DriveConfig(density_schedule="linear", score_batches=4)),
        "fae7c09fe3d7dd95",
        "5edb42cee2465264",
    ),
    (digits(method="dense", training=TrainingConfig(epochs=20)), "c3a11b707b6641ec", "5edb42cee2465264"),
    (digits(warmup_epochs=2, rewind="epoch 1", sparsity=0.9), "ff88071a30d0e335", "5edb42cee2465264"),
    (digits(rewind="init", precision="bf16", sparsity=0.5), "92bb05df5a030212", "f657a875e4837f3c"),
    (digits(dataset=DatasetConfig(name="digits", limit=500, validation=0.2)), "30e20fa7337d7164", "2827cf6f5cc4bb78"),
    (
        digits(dataset=DatasetConfig(name="image_folder", image_size=32, split_seed=3, augment="crop"), model="resnet20"),
        "cca80f2fc3df111e",
        "1ea1aa56f13f7bbd",
    ),
    (
        digits(training=TrainingConfig(epochs=160, batch_size=64, lr=0.2, milestones=(80, 120), gamma=0.2), warmup_epochs=1),
        "1f63f3cc71a521bc",
        "78b4022f626a3d1c",
    ),
    (
        digits(training=TrainingConfig(nesterov=True, momentum=0.8, weight_decay=5e-4, budget="total"), warmup_epochs=10),
        "af8d4c11303c89de",
        "e2cda62e7c1003a3",
    ),
    (
        digits(warmup=WarmupConfig(lr=0.01), warmup_epochs=3, prunable=PrunableConfig(exclude=("head", "conv1"))),
        "76e0734c330f75d6",
        "f951e58fe242505b",
    ),
]


@pytest.mark.parametrize(("config", "key", "warmup"), STORED_KEYS)
def test_trial_key_of_stored_config_is_unchanged(
    config: TrialConfig, key: str, warmup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "NUMERICS", FIRST_NUMERICS)
    assert (trial_key(config, DATA), warmup_key(config, DATA)) == (key, warmup)


def test_stored_keys_are_distinct() -> None:
    assert len(STORED_KEYS) >= 12
    assert len({key for _, key, _ in STORED_KEYS}) == len(STORED_KEYS)


def other_value(default: Any) -> Any:
    """A value of the same type as an option's default; keys check no rules of options."""
    if isinstance(default, bool):
        return not default
    return f"{default}-other" if isinstance(default, str) else (default or 0) + 1


# Every option of a method, another value than its default; no dense warm-up depends on it.
OTHER_OPTIONS: list[tuple[str, Any, bool]] = [
    (f"{name}.{option}", other_value(method.options.default(option)), False)
    for name, method in METHODS.items()
    for option in method.options.rules()
]
# Every field, another value than its default, and whether the dense warm-up depends on it.
OTHER_VALUES: list[tuple[str, Any, bool]] = [
    ("dataset.name", "cifar10", True),
    ("dataset.image_size", 32, True),
    ("dataset.limit", 100, True),
    ("dataset.validation", 0.2, True),
    ("dataset.split_seed", 1, True),
    ("dataset.augment", "crop", True),
    ("dataset.prescaled", True, True),
    ("model", "resnet20", True),
    ("method", "dense", False),
    ("warmup_epochs", 3, False),
    ("prune_iterations", 10, False),
    ("sparsity", 0.9, False),
    ("rewind", "init", False),
    ("seed", 1, True),
    ("precision", "bf16", True),
    ("warmup.lr", 0.5, True),
    ("warmup.auto", True, False),
    ("warmup.rule", "overlap", False),
    ("warmup.threshold", 0.5, False),
    ("warmup.window", 3, False),
    ("iterations.auto", True, False),
    ("iterations.threshold", 0.5, False),
    ("training.epochs", 3, False),
    ("training.batch_size", 64, True),
    ("training.lr", 0.2, True),
    ("training.momentum", 0.5, True),
    ("training.nesterov", True, True),
    ("training.weight_decay", 0.0, True),
    ("training.milestones", (1, 2), False),
    ("training.gamma", 0.5, False),
    ("training.budget", "total", False),
    ("prunable.exclude", ("head",), False),
    ("width", 2, True),
    ("initialization", "fan_out", True),
    ("training.schedule", "cosine", False),
    ("training.lr_warmup_epochs", 2, False),
    ("training.label_smoothing", 0.1, True),
    ("training.clip_norm", 1.0, True),
    ("training.loss", "module:mylosses.focal", True),
    ("training.spiking.rule", "sltt", True),
    ("training.spiking.steps", 4, True),
    ("training.spiking.sampled_steps", 2, True),
    ("training.spiking.tau", 2.0, True),
    ("training.spiking.mse_share", 0.0, True),
    ("initial_weights", True, True),
    ("norm_parts", 2, True),
    ("spdy.search", False, False),
    ("spdy.starts", 2, False),
    ("spdy.misses", 2, False),
    ("spdy.samples", 64, False),
    ("spdy.passes", 1, False),
    ("spdy.global_passes", 1, False),
    ("sanity.shuffle", True, False),
    ("sanity.reinitialize", True, False),
    ("sanity.invert", True, False),
    ("layer_sparsity", "erk", False),
    ("granularity", "channel", False),
    ("target.channels", 0.5, False),
    ("target.parameters", 0.5, False),
    ("target.multiply_adds", 0.5, False),
    ("target.latency", 0.5, False),
    ("compensate", True, False),
    ("block", "orepa", True),
    *OTHER_OPTIONS,
    ("grasp.images_per_class", None, False),
    ("drive.magnitude", 0.0, False),
]


def trial_with(path: str) -> TrialConfig:
    """The plain trial; for an option, of the method that has it."""
    return digits(method=path.partition(".")[0]) if is_option(path) else digits()


def field_path(path: str) -> str:
    return f"options.{path.partition('.')[2]}" if is_option(path) else path


def with_value(config: Any, path: str, value: Any) -> Any:
    name, _, rest = field_path(path).partition(".")
    return replace(config, **{name: with_value(getattr(config, name), rest, value) if rest else value})


def value_at(config: Any, path: str) -> Any:
    for name in field_path(path).split("."):
        config = getattr(config, name)
    return config


def paths_of(config: Any) -> set[str]:
    paths: set[str] = set()
    for spec in fields(config):
        value = getattr(config, spec.name)
        paths |= {f"{spec.name}.{path}" for path in paths_of(value)} if is_dataclass(value) else {spec.name}
    return paths


def test_every_field_is_covered() -> None:
    others = {path for path in paths_of(digits()) if not path.startswith("options.")}
    assert {path for path, _, _ in OTHER_VALUES if not is_option(path)} == others


@pytest.mark.parametrize(("path", "value", "in_warmup"), OTHER_VALUES)
def test_trial_key_depends_on_every_field(path: str, value: Any, in_warmup: bool) -> None:
    config = trial_with(path)
    changed = with_value(config, path, value)
    assert trial_key(changed, DATA) != trial_key(config, DATA)
    assert (warmup_key(changed, DATA) != warmup_key(config, DATA)) == in_warmup


@pytest.mark.parametrize(("path", "value", "_"), OTHER_VALUES)
def test_canonical_form_restores_the_config(path: str, value: Any, _: bool) -> None:
    config = with_value(trial_with(path), path, value)
    assert from_canonical(TrialConfig, canonical(config)) == config


@pytest.mark.parametrize("path", sorted({path for path, _, _ in OTHER_VALUES} - {"dataset.name", "model"}))
def test_canonical_form_omits_explicit_defaults(path: str) -> None:
    config = trial_with(path)
    written = with_value(config, path, value_at(config, path))
    method = {} if config.method == "drive" else {"method": config.method}
    assert canonical(written) == {"dataset": {"name": "digits"}, "model": "convnet"} | method


def test_options_of_another_method_are_replaced_by_defaults() -> None:
    config = digits(options=DriveConfig(magnitude=0.5))
    assert replace(config, method="granet").options == GranetConfig()
    assert replace(config, method="magnitude").options == Options()
    assert replace(config, seed=1).options == DriveConfig(magnitude=0.5)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "prune"},
        {"method": 3},
        {"method": "snip", "drive": {"magnitude": 2.0}},
        {"method": "snip", "options": {"score_batches": 2}},
        {"method": "snip", "snip": {"layers": "erk"}},
        {"method": "snip", "snip": 5},
        {"method": "module:mine.score", "options": 5},
    ],
)
def test_from_canonical_rejects_options_of_another_method(values: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        from_canonical(TrialConfig, {"dataset": {"name": "digits"}, "model": "convnet"} | values)


def test_trial_key_has_custom_options_in_any_order() -> None:
    one, other = ({"alpha": 0.5, "layers": [1, 2]}, {"layers": [1, 2], "alpha": 0.5})
    base = {"dataset": {"name": "digits"}, "model": "convnet", "method": "module:mine.score"}
    first, second, none = (from_canonical(TrialConfig, base | extra) for extra in ({"options": one}, {"options": other}, {}))
    assert first == second
    assert canonical(first) == base | {"options": one}
    assert trial_key(first, DATA) == trial_key(second, DATA) != trial_key(none, DATA)
    assert warmup_key(first, DATA) == warmup_key(none, DATA) == warmup_key(digits(), DATA)


def test_keys_depend_on_the_data() -> None:
    assert trial_key(digits(), "1" * 32) != trial_key(digits(), DATA)
    assert warmup_key(digits(), "1" * 32) != warmup_key(digits(), DATA)


def test_trial_key_is_equal_for_integers_and_floats() -> None:
    as_integers = digits(
        seed=1,
        warmup=WarmupConfig(lr=1),
        training=TrainingConfig(lr=1, momentum=0, epochs=20),
        options=DriveConfig(magnitude=2, connection=1),
    )
    as_floats = digits(
        seed=1.0,
        warmup=WarmupConfig(lr=1.0),
        training=TrainingConfig(lr=1.0, momentum=0.0, epochs=20.0),  # type: ignore[arg-type]
        options=DriveConfig(magnitude=2.0, connection=1.0),
    )
    assert trial_key(as_integers, DATA) == trial_key(as_floats, DATA)
    assert warmup_key(as_integers, DATA) == warmup_key(as_floats, DATA)


def test_from_canonical_returns_typed_values() -> None:
    config = from_canonical(TrialConfig, {"dataset": {"name": "digits"}, "model": "convnet", "seed": 2.0, "sparsity": 0})
    assert (type(config.seed), type(config.sparsity)) == (int, float)


def test_warmup_key_is_equal_with_explicit_rate() -> None:
    written = digits(warmup=WarmupConfig(lr=0.1))
    assert warmup_key(written, DATA) == warmup_key(digits(), DATA)


@pytest.mark.parametrize("component", sorted(FIRST_NUMERICS))
def test_trial_key_depends_on_numerics(component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = trial_key(digits(), DATA), warmup_key(digits(), DATA)
    raised = keys_module.NUMERICS | {component: keys_module.NUMERICS[component] + 1}
    monkeypatch.setattr(keys_module, "NUMERICS", raised)
    assert trial_key(digits(), DATA) != before[0]
    assert (warmup_key(digits(), DATA) != before[1]) == (component != "scores")  # a warm-up computes no score


def test_from_canonical_rejects_unknown_fields() -> None:
    with pytest.raises(TypeError, match=r"DriveConfig has no field 'magnitud'; known are .*magnitude, connection"):
        from_canonical(DriveConfig, {"magnitud": 1.0})


@pytest.mark.parametrize(
    ("sparsity", "prunable", "kept"),
    [
        (0.95, 270_896, 13_545),  # 13544.8
        (0.9, 270_896, 27_090),  # 27089.6
        (0.98, 270_896, 5_418),  # 5417.92
        (0.95, 10, 1),  # 0.5, half up; 0.4999... in binary
        (0.85, 10, 2),  # 1.5
        (0.995, 100, 1),  # 0.5
        (0.985, 100, 2),  # 1.5
        (0.0, 7, 7),
        (0.999, 100, 0),
        (1e-05, 100_000, 99_999),
    ],
)
def test_kept_count_is_decimal(sparsity: float, prunable: int, kept: int) -> None:
    assert kept_count(sparsity, prunable) == kept


def test_kept_count_equals_exact_fractions() -> None:
    draw = random.Random(0)
    for _ in range(5000):
        sparsity = draw.choice([round(draw.random(), draw.randint(1, 6)), draw.random()])
        if sparsity >= 1:
            continue
        prunable = draw.choice([draw.randint(1, 400), draw.randint(1, 30_000_000)])
        exact = (1 - Fraction(str(sparsity))) * prunable
        assert kept_count(sparsity, prunable) == (exact + Fraction(1, 2)).__floor__(), (sparsity, prunable)


def test_derived_seeds_are_distinct_and_fit_a_generator() -> None:
    seeds = [derived_seed(seed, purpose, index) for seed in range(3) for purpose in ("init", "batches") for index in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_warmup_lengths_include_the_rewind_epoch() -> None:
    assert digits().warmup_lengths == ()
    assert digits(warmup_epochs=4).warmup_lengths == (4,)
    assert digits(warmup_epochs=4, rewind="epoch 2").warmup_lengths == (2, 4)
    assert digits(warmup_epochs=4, rewind="init").warmup_lengths == (4,)
    assert [digits(rewind=rewind).rewind_epoch for rewind in ("none", "init", "epoch 7")] == [None, 0, 7]


def test_dense_baseline_has_no_rounds() -> None:
    assert digits(method="dense", prune_iterations=5).rounds == 0
    assert digits(prune_iterations=5).rounds == 5


def test_canonical_form_has_exclusions_as_a_list() -> None:
    config = digits(prunable=PrunableConfig(exclude=("head", "conv1")))
    assert canonical(config)["prunable"] == {"exclude": ["head", "conv1"]}
