"""A custom data set decoded in a process of its own: the driver imports neither PyTorch nor a user's module.

The decoded images stay in the node's cache, where trials look first. Read by: plan.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from trainables.data_facts import DataFacts
from trainables.datasets import Source
from trainables.failures import DataError, SettingError
from trainables.user_code import OwnFiles

CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from orchestrator.decoding_process import main; main()"
ERRORS: dict[str, type[DataError] | type[SettingError]] = {one.__name__: one for one in (DataError, SettingError)}


def facts_by_decoding(source: Source, own: OwnFiles) -> DataFacts:
    """The facts of a custom data set, after its function was called and its images checked.

    Raises:
        SettingError: there is no such module or function.
        DataError: the function fails, or returns something else.
    """
    root = str(Path(__file__).absolute().parent.parent)
    question = json.dumps({"source": asdict(source), "digest": own.digests[source.name]})
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, root],
        input=question,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ,
    )
    if done.returncode:
        raise DataError(f"dataset: {source.name} must return its images, got a process that ended with {done.returncode}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise ERRORS[answer["error"]](answer["message"])
    return DataFacts.from_json(answer)


def main() -> None:
    """The child: answers on standard output with the facts or the error; what the user's function prints goes elsewhere."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    question = json.load(sys.stdin)
    source = Source(**question["source"])
    try:
        answer = _decoded(source, question["digest"]).to_json()
    except tuple(ERRORS.values()) as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    json.dump(answer, answers)
    answers.flush()


def _decoded(source: Source, digest: str) -> DataFacts:
    from trainables.config import DatasetConfig, TrialConfig
    from trainables.data_facts import decoded_facts
    from trainables.datasets import decoded_file

    own = OwnFiles(modules_path=source.modules_path, digests={source.name: digest})
    own.activate(TrialConfig(dataset=DatasetConfig(name=source.name), model="convnet"))
    return decoded_facts(decoded_file(source))
