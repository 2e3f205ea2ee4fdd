"""The table of data sets. To add one, write its `Dataset` in a file of this folder and add it to the table."""

from __future__ import annotations

from trainables.config.trial import DatasetConfig
from trainables.custom.references import is_custom
from trainables.data.cifar import Cifar10, Cifar100
from trainables.data.custom_dataset import CustomDataset
from trainables.data.dataset import Dataset
from trainables.data.digits import Digits
from trainables.data.fashion_mnist import FashionMnist
from trainables.data.image_folders import ImageFolder, Imagenet, TinyImagenet

_ALL = (Digits(), Cifar10(), Cifar100(), FashionMnist(), ImageFolder(), TinyImagenet(), Imagenet())
DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ALL}
_CUSTOM = CustomDataset()


def dataset_of(name: str) -> Dataset:
    """The data set of a name or of a reference to a custom function. Raises KeyError for an unknown name."""
    return _CUSTOM if is_custom(name) else DATASETS[name]


def image_side(config: DatasetConfig) -> int | None:
    """Side in pixels of an image as networks see it; None if only the images determine it."""
    return config.image_size or dataset_of(config.name).side
