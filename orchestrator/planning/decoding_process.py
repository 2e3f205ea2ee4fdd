"""Decodes a custom data set in a separate process, so that the driver imports neither PyTorch nor custom modules.

The decoded images stay in the node's cache, where trials look first.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from orchestrator.process.child import ChildError, HungChildError, ask, serve
from orchestrator.process.patience import FUNCTION_S, HINT
from trainables.custom.files import CustomFiles
from trainables.data.facts import DataFacts
from trainables.data.source import DatasetSource
from trainables.errors import ConfigError, DataError

ERRORS: dict[str, type[DataError] | type[ConfigError]] = {one.__name__: one for one in (DataError, ConfigError)}


def facts_by_decoding(source: DatasetSource, custom_files: CustomFiles, limit_s: float = FUNCTION_S) -> DataFacts:
    """The facts of a custom data set; its function is called in two processes, which must return the same images.

    A split that is drawn without a seed, or that depends on the order of a Python set, would differ between nodes.

    Args:
        limit_s: seconds that the function may take.

    Raises:
        ConfigError: there is no such module or function.
        DataError: the function fails or hangs, does not return a data set, or returns other images in the second process.
    """
    first = _ask(source, custom_files, limit_s, keep=False)["arrays_digest"]
    return DataFacts.from_json(_ask(replace(source, arrays_digest=first), custom_files, limit_s, keep=True))


def _ask(source: DatasetSource, custom_files: CustomFiles, limit_s: float, keep: bool) -> dict[str, Any]:
    """Has a child call the function: the digest of its arrays; with `keep`, the facts of the data set that it stored."""
    try:
        request = {"source": asdict(source), "digest": custom_files.digests[source.name], "keep": keep}
        response: dict[str, Any] = ask(__name__, request, limit_s=limit_s)
    except HungChildError as error:
        raise DataError(
            f"dataset: {source.name} must return its images, got {error}", f"{HINT} (above {FUNCTION_S:.0f} s)"
        ) from error
    except ChildError as error:
        raise DataError(f"dataset: {source.name} must return its images, got a process that ended with {error.code}") from error
    if "error" in response:
        raise ERRORS[response["error"]](response["message"], response["hint"])
    return response


def main() -> None:
    """The child process: responds with the digest, the facts or an error."""
    serve(_respond)


def _respond(request: dict[str, Any]) -> dict[str, Any]:
    from trainables.data.datasets import decoded_file, read
    from trainables.data.facts import decoded_facts
    from trainables.data.repeatability import arrays_digest

    source = DatasetSource(**request["source"])
    try:
        import_function(source, request["digest"])
        if request["keep"]:
            return decoded_facts(decoded_file(source)).to_json()
        return {"arrays_digest": arrays_digest(read(source))}
    except (DataError, ConfigError) as error:
        kind = DataError if isinstance(error, DataError) else ConfigError
        return {"error": kind.__name__, "message": error.message, "hint": error.hint}


def import_function(source: DatasetSource, digest: str) -> None:
    """Imports the function of a custom data set into this process, from the file with this digest."""
    from trainables.config.trial import DatasetConfig, TrialConfig

    custom_files = CustomFiles(modules_path=source.modules_path, digests={source.name: digest})
    custom_files.import_modules(TrialConfig(dataset=DatasetConfig(name=source.name), model="convnet"))
