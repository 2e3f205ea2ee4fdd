"""The version that a file declares stands for the file in keys, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage.base import Storage
from tests.support.custom_modules import DATA, NETS, PLAIN, custom_config, plan_of, sha256_of, write_modules
from trainables.custom.files import CustomFiles
from trainables.custom.versions import declared_version
from trainables.data.datasets import content_digest
from trainables.data.source import DatasetSource
from trainables.errors import ConfigError


@pytest.mark.parametrize(
    ("source", "version"),
    [
        ('__version__ = "2"', "2"),
        ('"""Nets."""\nimport x\n__version__: str = "1.0 beta"\n', "1.0 beta"),
        ("a = __version__ = 'x'", "x"),
        ("", None),
        ("__version__ = 2", None),
        ("__version__ = ''", None),
        ("__version__ = f'{x}'", None),
        ("__version__ = version()", None),
        ("__version__ = '1'\n__version__ = '2'", None),
        ("if True:\n    __version__ = '1'", None),
        ("__version__ += '1'", None),
        ("# __version__ = '1'", None),
        ("def f(:", None),
        ("\0", None),
    ],
)
def test_only_one_literal_line_declares_a_version(source: str, version: str | None) -> None:
    assert declared_version(source.encode()) == version


def keys(storage: Storage) -> list[str]:
    return [trial.key for trial in plan_of(PLAIN, storage).trials]


def test_keys_follow_the_version_and_not_the_file(folder: Path, storage: Storage) -> None:
    hashed = keys(storage)
    write_modules(folder, mynets=f'__version__ = "1"\n{NETS}')
    first = keys(storage)
    write_modules(folder, mynets=f'__version__ = "1"\n{NETS}\n# a comment\n')
    assert keys(storage) == first
    write_modules(folder, mynets=f'__version__ = "2"\n{NETS}')
    second = keys(storage)
    write_modules(folder, mynets=NETS)
    assert keys(storage) == hashed
    of_custom = [index for index, key in enumerate(hashed) if key != first[index]]
    assert of_custom
    assert all(len({hashed[index], first[index], second[index]}) == 3 for index in of_custom)


def test_keys_without_a_version_are_those_of_the_hash(folder: Path) -> None:
    files = CustomFiles(modules_path=str(folder)).with_digests([custom_config()])
    assert files.identities_of(custom_config()) == files.digests_of(custom_config()) == {"model": sha256_of(NETS)}
    assert files.versions == {}


def test_a_worker_refuses_another_file_of_the_same_version(folder: Path) -> None:
    write_modules(folder, mynets=f'__version__ = "1"\n{NETS}')
    files = CustomFiles(modules_path=str(folder)).with_digests([custom_config()])
    write_modules(folder, mynets=f'__version__ = "1"\n{NETS}\n')
    with pytest.raises(ConfigError, match="must be the file that the sweep was planned with"):
        files.import_modules(custom_config())


def test_the_digest_of_a_data_function_follows_its_version(folder: Path) -> None:
    """What the function returns is compared with the first call's arrays all the same (known_data.py)."""
    source = DatasetSource(name="module:mydata.load", modules_path=str(folder))
    hashed = content_digest(source)
    write_modules(folder, mydata=f'__version__ = "1"\n{DATA}')
    first = content_digest(source)
    write_modules(folder, mydata=f'__version__ = "1"\n{DATA}\n# longer\n')
    assert content_digest(source) == first
    write_modules(folder, mydata=f'__version__ = "2"\n{DATA}')
    assert len({hashed, first, content_digest(source)}) == 3
