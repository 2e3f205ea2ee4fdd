"""Runs the code of exported models in a process without this project, as their users do; verification.py starts it.

It is a file that is run by its path, so it imports nothing of this project, and refuses to. Request and answer are JSON.
"""

from __future__ import annotations

import gc
import importlib.machinery
import json
import os
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

WITHOUT = ("trainables", "orchestrator")
WARM_UP_CALLS = 3
FEWEST_ROUNDS, MOST_ROUNDS = 5, 500


class WithoutProject:
    """Hides this project, which may be installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] in WITHOUT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main() -> None:
    """Answers the request on standard input; what a model's code prints goes to stderr."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    sys.meta_path.insert(0, WithoutProject())
    run_on_one_thread(request["packages"])
    models = [LoadedModel(one["folder"], one["code"]) for one in request["models"]]
    images = load_array(request["images"])
    if request["scores"]:
        save_array(request["scores"], in_batches(models[-1], images, request["batch"]))
        save_array(request["first_scores"], models[-1].scores(images[:1]))
    latency = {str(size): latencies(models, images, size, request["seconds"]) for size in request["latency_batches"]}
    json.dump({"latency": latency}, answer)
    answer.close()


class LoadedModel:
    """A model as its code has loaded it."""

    def __init__(self, folder: str, code: str) -> None:
        os.chdir(folder)
        self.names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(code, "README.md", "exec"), self.names)

    def taken(self, images: Any) -> Any:
        """The images as `predict` takes them: like its example."""
        import numpy as np

        example = self.names["images"]
        return images if isinstance(example, np.ndarray) else sys.modules["torch"].from_numpy(images)

    def scores(self, images: Any) -> Any:
        import numpy as np

        return np.asarray(self.names["predict"](self.taken(images)))


def run_on_one_thread(packages: list[str]) -> None:
    """PyTorch and ONNX Runtime use the same number of processors, and do not take them from each other."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for PyTorch
    if "onnxruntime" not in packages:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession

    def on_one_thread(*arguments: Any, **settings: Any) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return session(*arguments, sess_options=options, **settings)

    onnxruntime.InferenceSession = on_one_thread


def in_batches(model: LoadedModel, images: Any, size: int) -> Any:
    import numpy as np

    return np.concatenate([model.scores(images[start : start + size]) for start in range(0, len(images), size)])


def latencies(models: list[LoadedModel], images: Any, size: int, seconds: float) -> list[list[float]]:
    """Seconds that each model takes for a batch, in rounds in which each has a turn.

    The order changes, and only the second call of a turn counts, since the model before has left the caches full of its own.
    """
    import numpy as np

    batch = np.resize(images, (size, *images.shape[1:]))
    return seconds_in_turns([partial(model.names["predict"], model.taken(batch)) for model in models], seconds)


def seconds_in_turns(calls: list[Callable[[], Any]], seconds: float) -> list[list[float]]:
    """Seconds that each of the calls takes, by round; see `latencies`."""
    for call in calls:
        for _ in range(WARM_UP_CALLS):
            call()
    times: list[list[float]] = [[] for _ in calls]
    turns, ends = random.Random(0), time.perf_counter() + seconds
    gc.disable()
    try:
        for round_ in range(MOST_ROUNDS):
            if round_ >= FEWEST_ROUNDS and time.perf_counter() > ends:
                break
            for number in turns.sample(range(len(calls)), len(calls)):
                calls[number]()
                began = time.perf_counter()
                calls[number]()
                times[number].append(time.perf_counter() - began)
    finally:
        gc.enable()
    return times


def load_array(file: str) -> Any:
    import numpy as np

    return np.load(file, allow_pickle=False)


def save_array(file: str, values: Any) -> None:
    import numpy as np

    np.save(file, values)


if __name__ == "__main__":
    main()
