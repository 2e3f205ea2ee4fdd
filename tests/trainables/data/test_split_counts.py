"""Images of each class in the splits: properties of the rule, the old rule as oracle on balanced sets, and the keys."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from orchestrator.errors import UserError
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from tests.support.dataset_folders import streamed, write_image
from tests.support.trials import tiny_config
from trainables.config import keys
from trainables.config.methods import GraspConfig
from trainables.config.trial import DatasetConfig
from trainables.data.batches import class_balanced_batches
from trainables.data.digits import DIGITS_DIGEST, DIGITS_FACTS
from trainables.data.facts import DataFacts
from trainables.data.source import DatasetSource
from trainables.data.split_checks import split_findings, split_lines
from trainables.data.split_counts import draw, equal_draw, scoring_counts, split_counts, split_versions
from trainables.data.splits import class_counts, load_data, split_indices
from trainables.errors import DataError

LONG_TAIL = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)  # CIFAR-10-LT with imbalance 100
counts_of_classes = st.lists(st.integers(1, 400), min_size=2, max_size=12).map(tuple)
shares = st.integers(0, 50).map(lambda percent: percent / 100)


def old_draw(labels_N: Tensor, count: int, seed: int) -> list[int]:
    """What versions before this rule drew: one image of each class in turn, image by image."""
    shuffled = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed)).tolist()
    by_class: dict[int, list[int]] = {}
    for index in shuffled:
        by_class.setdefault(int(labels_N[index]), []).append(index)
    turn = [(rank, label, index) for label, members in by_class.items() for rank, index in enumerate(members)]
    return sorted(index for _, _, index in sorted(turn)[:count])


def old_splits(config: DatasetConfig, train_labels: Tensor, test_labels: Tensor) -> list[list[int]]:
    def seed(purpose: str) -> int:
        from trainables.runtime.seeding import derived_seed

        return derived_seed(config.split_seed, purpose)

    train, test = list(range(len(train_labels))), list(range(len(test_labels)))
    if config.limit is not None:
        train = old_draw(train_labels, config.limit, seed("limit train"))
        test = old_draw(test_labels, config.limit // 5, seed("limit test"))
    places = set(old_draw(train_labels[train], round(config.validation * len(train)), seed("validation")))
    held_out = [index for place, index in enumerate(train) if place in places]
    return [[index for index in train if index not in set(held_out)], held_out, test]


def labels_of(counts: tuple[int, ...], seed: int = 0) -> Tensor:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def whole_splits(config: DatasetConfig, counts: tuple[int, ...], seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    labels = labels_of(counts, seed)
    return labels, list(split_indices(config, labels, labels))


@given(
    counts=counts_of_classes, validation=shares, split_seed=st.integers(0, 3), share=st.integers(1, 100), whole=st.booleans()
)
@example(counts=(3, 203), validation=0.1, split_seed=0, share=100, whole=True)
@example(counts=(1, 1, 100), validation=0.5, split_seed=0, share=100, whole=True)
@example(counts=LONG_TAIL[4:], validation=0.1, split_seed=0, share=30, whole=False)
def test_splits_are_disjoint_complete_and_repeatable(
    counts: tuple[int, ...], validation: float, split_seed: int, share: int, whole: bool
) -> None:
    limit = None if whole else max(len(counts), sum(counts) * share // 100)
    config = DatasetConfig(name="any", limit=limit, validation=validation, split_seed=split_seed)
    labels, (train, held_out, test) = whole_splits(config, counts)
    assert not set(train.tolist()) & set(held_out.tolist())
    assert len(train) + len(held_out) == (limit or sum(counts))
    assert len(test) == (limit // 5 if limit else sum(counts))
    for part in (train, held_out, test):
        assert part.tolist() == sorted(set(part.tolist()))
    assert set(labels[train].tolist()) == set(range(len(counts)))
    _, again = whole_splits(config, counts)
    assert all(torch.equal(one, other) for one, other in zip((train, held_out, test), again, strict=True))
    known = split_counts(config, counts, counts)
    ours = [tuple(Counter(labels[part].tolist())[label] for label in range(len(counts))) for part in (train, held_out, test)]
    assert ours == [known.train, known.validation, known.test]


@given(counts=counts_of_classes, data=st.data())
def test_draw_takes_the_share_of_every_class(counts: tuple[int, ...], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, sum(counts) // 2))
    given_ = draw(counts, number, kept=1)
    tolerance = 0.1 if max(counts) <= 1.1 * min(counts) else 0
    for one, count in zip(given_, counts, strict=True):
        share = number * count / sum(counts)
        assert abs(one - share) <= 1 + tolerance * share
        assert one <= count - 1
    assert sum(given_) <= number
    if min(counts) > 1:
        assert sum(given_) == number


@given(counts=counts_of_classes, data=st.data())
def test_draw_does_not_depend_on_class_names(counts: tuple[int, ...], data: st.DataObject) -> None:
    number = data.draw(st.integers(len(counts), sum(counts)))
    order = data.draw(st.permutations(range(len(counts))))
    renamed = tuple(counts[label] for label in order)
    given_, permuted = draw(counts, number, minimum=1), draw(renamed, number, minimum=1)
    assert sum(given_) == sum(permuted) == number
    assert min(given_) >= 1
    equal = given_ == equal_draw(counts, number) or permuted == equal_draw(renamed, number)
    if not equal:  # an equal draw gives what is over to the lowest labels, as it always did
        assert Counter(zip(counts, given_, strict=True)) == Counter(zip(renamed, permuted, strict=True))


@given(
    size=st.integers(10, 60), classes=st.integers(2, 10), validation=shares, split_seed=st.integers(0, 3), limited=st.booleans()
)
def test_balanced_data_sets_keep_earlier_splits(
    size: int, classes: int, validation: float, split_seed: int, limited: bool
) -> None:
    counts = (size,) * classes
    limit = max(2 * classes, size * classes // 3) if limited else None
    config = DatasetConfig(name="any", limit=limit, validation=validation, split_seed=split_seed)
    labels, ours = whole_splits(config, counts)
    assert [part.tolist() for part in ours] == old_splits(config, labels, labels)
    assert not split_counts(config, counts, counts).is_proportional


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=8).map(tuple), data=st.data())
def test_equal_draw_takes_one_of_each_class_in_turn(counts: tuple[int, ...], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, sum(counts)))
    taken, left = [0] * len(counts), number
    while left:
        for label, count in enumerate(counts):
            if left and taken[label] < count:
                taken[label], left = taken[label] + 1, left - 1
    assert equal_draw(counts, number) == tuple(taken)


def test_built_in_data_sets_keep_their_splits_and_keys() -> None:
    for name, train, test, limits in (
        ("digits", DIGITS_FACTS.train_counts, DIGITS_FACTS.test_counts, (None, *range(20, 1443))),
        ("cifar10", (5000,) * 10, (1000,) * 10, (None, 6000, 20_000)),
        ("cifar100", (500,) * 100, (100,) * 100, (None, 6000, 20_000)),
        ("tiny_imagenet", (500,) * 200, (50,) * 200, (None, 20_000)),
    ):
        for limit in limits:
            for validation in (0.0, 0.1, 0.2):
                config = DatasetConfig(name=name, limit=limit, validation=validation)
                assert not split_counts(config, train, test).is_proportional


def test_small_classes_keep_training_images() -> None:
    pets = split_counts(DatasetConfig(name="image_folder", validation=0.1), (3, 203), (3, 20))
    assert (pets.train, pets.validation) == ((3, 182), (0, 21))
    tail = split_counts(DatasetConfig(name="cifar", validation=0.1), LONG_TAIL, (1000,) * 10)
    assert tail.validation == (500, 300, 180, 108, 64, 39, 23, 14, 8, 5)
    limited = split_counts(DatasetConfig(name="cifar", limit=200, validation=0.0), LONG_TAIL, (1000,) * 10).limited
    assert limited == (81, 48, 29, 17, 11, 6, 4, 2, 1, 1)


# Keys


def trial_keys(counts: tuple[int, ...], **changes: Any) -> tuple[str, str]:
    config = tiny_config(dataset=DatasetConfig(name="image_folder", image_size=8), **changes)
    trial, warmup = (keys.inputs_digest("d", {}, one) for one in split_versions(config, counts, counts))
    return keys.trial_key(config, trial), keys.warmup_key(config, warmup)


def test_keys_change_only_with_the_splits() -> None:
    balanced, tail = trial_keys((50,) * 4), trial_keys((400, 100, 20, 3))
    config = tiny_config(dataset=DatasetConfig(name="image_folder", image_size=8))
    assert balanced == (keys.trial_key(config, "d"), keys.warmup_key(config, "d"))
    assert tail[0] != balanced[0]
    assert tail[1] != balanced[1]


def test_scores_of_small_classes_change_the_trial_key_alone() -> None:
    counts = (20, 20, 10)  # 18, 18 and 9 to train on
    few = {"method": "grasp", "options": GraspConfig(images_per_class=12)}
    config = tiny_config(dataset=DatasetConfig(name="image_folder", image_size=8), **few)
    trial, warmup = split_versions(config, counts, counts)
    assert (trial, warmup) == ({"score_images": 2}, {})
    enough = replace(config, options=GraspConfig(images_per_class=9))
    assert split_versions(enough, counts, counts) == ({}, {})


def test_class_balanced_scores_use_all_of_a_small_class() -> None:
    data = load_data(DatasetConfig(name="digits", limit=300), DatasetSource(name="digits"), "cpu")
    tail = tuple(max(1, 27 // 2**label) for label in range(10))
    kept = torch.cat([torch.where(data.train.labels == label)[0][:count] for label, count in enumerate(tail)])
    train = replace(data.train, images=data.train.images[kept], labels=data.train.labels[kept])
    for seed in range(3):
        batches = list(class_balanced_batches(replace(data, train=train), 16, 10, seed, 1))
        labels = torch.cat([labels for _, labels in batches])
        assert class_counts(labels) == scoring_counts(tail, 10) == (10, 10, 6, 3, 1, 1, 1, 1, 1, 1)


def test_streamed_data_sets_are_split_by_the_same_rule(tmp_path: Path) -> None:
    for wnid, label, count in (("n1", 0, 13), ("n2", 1, 7), ("n3", 2, 2)):
        for number in range(count):
            write_image(tmp_path / "train" / wnid / f"{number}.JPEG", label, number)
        write_image(tmp_path / "val" / wnid / "0.JPEG", label, 0)
    data = streamed(tmp_path, validation=0.5)
    expected = split_counts(DatasetConfig(name="imagenet", validation=0.5), (13, 7, 2), (1, 1, 1))
    assert class_counts(data.train.labels) == expected.train == (6, 4, 1)
    assert class_counts(data.validation.labels) == expected.validation == (7, 3, 1)


# What is refused, and what is told

FOLDER = """\
name: folder
dataset: {{name: image_folder, root: {root}, image_size: 8}}
model: convnet
search: {{warmup_epochs: [1], seed: [0]}}
sparsity: 0.5
training: {{epochs: 1, batch_size: 4}}
resources: {{device: cpu}}
"""


def image_tree(root: Path, train: dict[str, int], test: dict[str, int]) -> Path:
    for split, classes in (("train", train), ("test", test)):
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (len(name), 9, 200)).save(folder / "0.png")
            for number in range(1, count):
                shutil.copy(folder / "0.png", folder / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["dataset.limit=10", "training.batch_size=32"], r"training\.batch_size must be at most .*, 9 .*got 32; set it to 9"),
        (["dataset.limit=100"], r"dataset\.limit asks for 20 test images, the data set has 16; set it to 84 or less"),
        (["dataset.limit=1000"], r"dataset\.limit asks for 1000 training images, the data set has 120"),
        (
            ["dataset.validation=0.001"],
            r"dataset\.validation must hold out .*got 0\.001 of 120 images; set it to 0\.005 or more",
        ),
        (["training.batch_size=500"], r"training\.batch_size must be at most the number of training images, 108 .*got 500"),
    ],
)
def test_plan_rejects_impossible_splits(tmp_path: Path, options: list[str], message: str) -> None:
    root = image_tree(tmp_path / "images", {"cat": 60, "dog": 60}, {"cat": 8, "dog": 8})
    (tmp_path / "s.yaml").write_text(FOLDER.format(root=root))
    storage = open_storage(str(tmp_path / "runs"), create=True)
    for hash_data in (False, True):
        with pytest.raises(UserError, match=message):
            make_plan(load_spec(str(tmp_path / "s.yaml"), options), storage, hash_data)
    assert not storage.names("trials")


def test_limit_below_the_number_of_classes_is_rejected() -> None:
    with pytest.raises(DataError, match=r"dataset\.limit must take at least one image of each of the 12 classes, got 10"):
        split_counts(DatasetConfig(name="any", limit=10), (5,) * 12, (5,) * 12)


def test_scores_over_too_few_images_give_a_warning() -> None:
    facts = DataFacts(image_shape=(3, 8, 8), classes=("a", "b"), train_counts=(60, 8), test_counts=(9, 9))
    config = tiny_config(dataset=DatasetConfig(name="any"), method="grasp", options=GraspConfig(images_per_class=10))
    (finding,) = split_findings(config, facts)
    assert (finding.severity, finding.check, finding.places) == ("warning", "images_per_class", ("1",))


def test_split_lines_show_classes_where_counts_differ() -> None:
    pets = split_counts(DatasetConfig(name="any", validation=0.1), (3, 203), (5, 5))
    assert split_lines(pets, ("cat", "dog")) == [
        "training: 185 images (cat 3, dog 182)",
        "validation: 21 images (cat 0, dog 21)",
        "test: 10 images",
    ]
    assert len(split_lines(pets, ("cat", "dog"), only_uneven=True)) == 2


def test_keys_of_balanced_digits_have_no_split_version(tmp_path: Path) -> None:
    plan = make_plan(load_spec("digits"), open_storage(str(tmp_path / "runs")))
    assert [trial.key for trial in plan.trials] == [keys.trial_key(trial.config, DIGITS_DIGEST) for trial in plan.trials]
