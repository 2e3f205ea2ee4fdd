"""Decodes a custom data set in a process of its own, so that the driver imports neither PyTorch nor custom modules.

The decoded images stay in the node's cache, where trials look first.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from orchestrator.process.child import ChildError, ask, serve
from trainables.custom.files import CustomFiles
from trainables.data.facts import DataFacts
from trainables.data.source import DatasetSource
from trainables.errors import ConfigError, DataError

ERRORS: dict[str, type[DataError] | type[ConfigError]] = {one.__name__: one for one in (DataError, ConfigError)}


def facts_by_decoding(source: DatasetSource, custom_files: CustomFiles) -> DataFacts:
    """The facts of a custom data set, after its function was called in two processes and its images checked.

    Two, since a split that is drawn without a seed, or follows the order of a set, would differ from node to node.

    Raises:
        ConfigError: there is no such module or function.
        DataError: the function fails, returns something else, or other images when it is called again.
    """
    first = _answered(source, custom_files, keep=False)["arrays_digest"]
    return DataFacts.from_json(_answered(replace(source, arrays_digest=first), custom_files, keep=True))


def _answered(source: DatasetSource, custom_files: CustomFiles, keep: bool) -> dict[str, Any]:
    """The answer of a process that calls the function: the digest of what it returned, or the facts of what was kept."""
    try:
        answer: dict[str, Any] = ask(
            __name__, {"source": asdict(source), "digest": custom_files.digests[source.name], "keep": keep}
        )
    except ChildError as error:
        raise DataError(f"dataset: {source.name} must return its images, got a process that ended with {error.code}") from error
    if "error" in answer:
        raise ERRORS[answer["error"]](answer["message"])
    return answer


def main() -> None:
    """The child: answers with the facts or the error."""
    serve(_answer)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from trainables.data.datasets import decoded_file, read
    from trainables.data.facts import decoded_facts
    from trainables.data.repeatability import arrays_digest

    source = DatasetSource(**question["source"])
    try:
        import_function(source, question["digest"])
        if question["keep"]:
            return decoded_facts(decoded_file(source)).to_json()
        return {"arrays_digest": arrays_digest(read(source))}
    except (DataError, ConfigError) as error:
        kind = DataError if isinstance(error, DataError) else ConfigError
        return {"error": kind.__name__, "message": str(error)}


def import_function(source: DatasetSource, digest: str) -> None:
    """Imports the function of a custom data set into this process, from the file with this digest."""
    from trainables.config.trial import DatasetConfig, TrialConfig

    custom_files = CustomFiles(modules_path=source.modules_path, digests={source.name: digest})
    custom_files.import_modules(TrialConfig(dataset=DatasetConfig(name=source.name), model="convnet"))
