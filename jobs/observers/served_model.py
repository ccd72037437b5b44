"""The model that `mlflow.pyfunc` loads: recommendations of a published run.

MLflow stores this file with the model and runs it where the model is loaded, so that nothing is
pickled; the package embedmill must be installed there.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.query.lookup import recommend
from embedmill.pipeline.store.run import Run, open_run

__all__ = ["Recommendations"]


class Recommendations(mlflow.pyfunc.PythonModel):  # type: ignore[misc, unused-ignore]
    """Answers users with items: columns user, rank from 1, item, score, best first.

    The input has a column `user` with raw ids. The parameters are `k`, answers for each user (10),
    and `exclude_seen` (true). A user without recommendations, such as one that is not in the run,
    has no rows.
    """

    _run: Run

    def load_context(self, context: Any) -> None:
        """Open the run that is stored with the model."""
        self._run = open_run(context.artifacts["run"])

    def predict(
        self, context: Any, model_input: Any, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Recommendations, as the class says."""
        wanted = params or {}
        k, exclude_seen = int(wanted.get("k", 10)), bool(wanted.get("exclude_seen", True))
        rows: list[tuple[str, int, str, float]] = []
        for user in model_input["user"].astype(str).tolist():
            try:
                hits = recommend(self._run, user, k, exclude_seen=exclude_seen)
            except InputError:
                continue
            rows += [(user, rank, hit.item, hit.score) for rank, hit in enumerate(hits, 1)]
        return pd.DataFrame(rows, columns=["user", "rank", "item", "score"])


mlflow.models.set_model(Recommendations())
