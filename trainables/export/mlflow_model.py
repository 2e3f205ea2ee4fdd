"""The sparse model as MLflow serves it: logged as this code beside the model file, without a pickle.

MLflow runs this file to get the model. The modules of `trainables` that it needs travel with it under another package name
(orchestrator/tracking/model_packaging.py), so it loads whether this package is installed, in another version, or not at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class ServedSparseModel(PythonModel):  # type: ignore[misc]
    """Input: float32 images (N, C, H, W) in 0..1, not normalised. Output: float32 class scores (N, classes)."""

    def load_context(self, context: Any) -> None:
        from trainables.export.sparse_model import load_sparse_model

        self.model = load_sparse_model(context.artifacts["model"])

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        return self.model.predict(model_input).numpy()


set_model(ServedSparseModel())
