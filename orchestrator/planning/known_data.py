"""Digest and facts of a data set on this host: from the storage's record while no file has changed, else computed.

<storage>/data/<signature>.json        digest and facts of the files with these paths, sizes and times
<storage>/data/arrays/<digest>.json    what a data function of this content returned when it was first called
"""

from __future__ import annotations

from orchestrator.process.patience import FUNCTION_S
from orchestrator.storage.base import Storage
from trainables.custom.files import CustomFiles
from trainables.data import datasets
from trainables.data.facts import DataFacts
from trainables.data.repeatability import require_same
from trainables.data.source import DatasetSource
from trainables.data.table import dataset_of


def known_data(
    storage: Storage, source: DatasetSource, custom_files: CustomFiles, hash_data: bool, limit_s: float = FUNCTION_S
) -> tuple[str | None, DataFacts | None]:
    """Digest and facts of the data, as far as they are recorded for unchanged files or can be computed at once.

    Without facts no digest is of use, since keys follow from both.

    Args:
        limit_s: seconds that the function of a custom data set may take.

    Raises:
        DataError: the data are not where the sweep file says, or damaged.
        ConfigError: the function of a custom data set is not there.
    """
    dataset = dataset_of(source.name)
    if dataset.digest is not None:
        return dataset.digest, dataset.facts(source)
    file = f"data/{datasets.signature(source)}.json"
    record = storage.read_json(file, fields=("digest",)) or {}
    digest, facts = record.get("digest"), record.get("facts")
    known = DataFacts.from_json(facts) if facts else datasets.quick_facts(source)
    if hash_data:
        from orchestrator.planning.decoding_process import facts_by_decoding  # which only data without a record need

        known = known or facts_by_decoding(source, custom_files, limit_s)
        if digest is None or facts is None:
            digest = digest or datasets.content_digest(source)
            storage.write_json(file, {"digest": digest, "name": source.name, "root": source.root, "facts": known.to_json()})
        if known.arrays_digest:
            _require_same_arrays(storage, source.name, digest, known.arrays_digest)
    return digest if known else None, known


def _require_same_arrays(storage: Storage, name: str, digest: str, arrays: str) -> None:
    """Keys hold the files of a data function; trials of this storage must also have the same arrays, on whichever host.

    Raises:
        DataError: the function returned others when this storage first met these files.
    """
    file = f"data/arrays/{digest}.json"
    before = (storage.read_json(file, fields=("arrays_digest",)) or {}).get("arrays_digest")
    require_same(name, before, arrays)
    if before is None:
        storage.write_json(file, {"arrays_digest": arrays})
