"""Rules that involve several keys of a sweep file, each with a hint."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.axes import section_of
from orchestrator.spec.conflict import Conflict
from orchestrator.spec.field_types import DEFAULT
from orchestrator.spec.grid import AUTO_SECTIONS
from orchestrator.spec.schema import SweepSpec
from trainables.config.method import Course
from trainables.config.trial import TrialConfig
from trainables.custom.references import is_custom
from trainables.data.table import DATASETS, dataset_of, image_side
from trainables.models.image_sizes import sizes_that_work, takes_image
from trainables.models.table import NETWORKS


def config_conflicts(config: TrialConfig) -> Iterator[Conflict]:
    """The conflicts within one trial's configuration."""
    training = config.training
    if training.nesterov and training.momentum == 0:
        yield Conflict(("training.nesterov", "training.momentum"), "be false with momentum 0", "raise training.momentum")
    side = image_side(config.dataset)
    if side is not None and not takes_image(config.model, side, side):
        rule = f"be a network for images of {side} x {side} pixels"
        yield Conflict(("model", "dataset.name", "dataset.image_size"), rule, sizes_that_work(config.model, side, side))
    with_width = [name for name, network in NETWORKS.items() if network.has_width]
    if config.width != 1 and config.model not in with_width:
        yield Conflict(("width", "model"), "be 1 for this model", f"remove it, or take one of {', '.join(with_width)}")
    with_blocks = [name for name, network in NETWORKS.items() if network.has_blocks]
    if config.block != "plain" and config.model not in with_blocks:
        yield Conflict(("block", "model"), "be plain for this model", f"remove it, or take one of {', '.join(with_blocks)}")
    if config.block != "plain" and config.initial_weights:
        yield Conflict(("block", "initial_weights"), "be plain with initial weights", "remove one of the two")
    if training.label_smoothing and is_custom(training.loss):
        yield Conflict(("training.label_smoothing", "training.loss"), "be 0 with a custom loss", "remove it")
    if config.is_dense:
        return
    for conflict in config.options.conflicts():
        keys = tuple(f"{config.option_block}.{name}" for name in conflict.names)
        yield Conflict(keys, conflict.rule.format(block=config.option_block), conflict.hint)
    warmup = "warmup.most" if config.warmup.auto else "warmup_epochs"
    if (config.rewind_epoch or 0) > config.warmup_epochs:
        yield Conflict(("rewind", warmup), f"name an epoch <= {warmup}", "rewind less far or warm up longer")
    if training.budget == "total" and training.epochs <= config.warmup_epochs:
        rule = f"be > {warmup} with training.budget total"
        yield Conflict(("training.epochs", warmup), rule, "train longer or warm up shorter")
    yield from _auto_conflicts(config)


def _auto_conflicts(config: TrialConfig) -> Iterator[Conflict]:
    """The conflicts of numbers that a trial chooses itself."""
    course, warmup = config.pruning.course, config.warmup
    if config.iterations.auto and course is Course.GRADUAL:
        rule = f"be a number for {config.method}, which prunes during training"
        yield Conflict(("prune_iterations", "method"), rule, "write a number such as 50")
    if not warmup.auto:
        return
    if warmup.window >= config.warmup_epochs:
        yield Conflict(
            ("warmup.most", "warmup.window", "warmup_epochs"), "be > warmup.window", "allow more epochs or compare with fewer"
        )
    if warmup.window < (config.rewind_epoch or 0) and course is not Course.LEVELS:
        rule = "name an epoch <= warmup.window with warmup_epochs auto, which may end there"
        yield Conflict(("rewind", "warmup.window"), rule, "rewind less far")
    fixed = config.options.fixed_sparsity() is not None or not config.pruning.is_ranking
    by_layer = config.layer_sparsity != DEFAULT.layer_sparsity
    if warmup.rule == "epi" and (fixed or by_layer):
        key, value = ("layer_sparsity", config.layer_sparsity) if by_layer else ("method", config.method)
        rule = f"be overlap for {value}: its layers always keep the same number of weights"
        yield Conflict(("warmup.rule", key), rule, "write warmup: {rule: overlap}")


def auto_options() -> Iterator[tuple[str, str, str]]:
    """Key that may be automatic, section that says how it is chosen, option of the section."""
    for key, section in AUTO_SECTIONS.items():
        model = section_of(SweepSpec.model_fields[section].annotation)
        assert model is not None
        yield from ((key, section, option) for option in model.model_fields if option != "lr")


def unused_auto_conflicts(spec: SweepSpec) -> Iterator[Conflict]:
    """The keys that have no effect, since the number that they are about is not automatic."""
    for key, name, option in auto_options():
        if getattr(spec, key) == "auto" and key not in spec.search:
            continue
        section, path = getattr(spec, name), f"{name}.{option}"
        if getattr(section, option) != type(section).model_fields[option].default or path in spec.search:
            yield Conflict((path, key), f"be given only with {key} auto", f"write {key}: auto, or remove it")


def dataset_conflicts(spec: SweepSpec) -> Iterator[Conflict]:
    """The conflicts between the keys of `dataset`."""
    section, name = spec.dataset, spec.dataset.name
    dataset = dataset_of(name)
    if dataset.image_size == "required" and section.image_size is None:
        yield Conflict(("dataset.image_size", "dataset.name"), f"be given for {name}", "add image_size: 32")
    if dataset.image_size == "refused" and section.image_size is not None:
        yield Conflict(
            ("dataset.image_size", "dataset.name"), f"not be given for {name}", "remove it, its images have one size"
        )
    if dataset.takes_root and not is_custom(name) and section.root is None:
        yield Conflict(("dataset.root", "dataset.name"), f"be given for {name}", "add root: ./data")
    if not dataset.takes_root and section.root is not None:
        yield Conflict(("dataset.root", "dataset.name"), f"not be given for {name}", f"remove it, {name} come with the program")
    if section.download and not dataset.can_download:
        *others, last = (name for name, entry in DATASETS.items() if entry.can_download)
        hint = f"only {', '.join(others)} and {last} are fetched"
        yield Conflict(("dataset.download", "dataset.name"), f"be false for {name}", hint)
    if section.prescaled and not dataset.is_streamed:
        streamed = ", ".join(name for name, entry in DATASETS.items() if entry.is_streamed)
        yield Conflict(("dataset.prescaled", "dataset.name"), f"be false for {name}", f"remove it, only {streamed} is streamed")
