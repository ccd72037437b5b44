"""MLflow: metrics of the finished run, and the published run as a registered model.

The metrics go to the MLflow run that `train.track` made, or to one of their own. The model holds
what answering needs: vectors, index, vocabulary, seen items and item metadata; see `served_model`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric

from embedmill import __version__
from embedmill.jobs.observers import served_model
from embedmill.jobs.observers.observer import Observer, RunEnd
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.events import ITEMS
from embedmill.schemas.run import CONFIG, MANIFEST

__all__ = ["ModelObserver"]

# What answering reads; of the events only their items.
_STAGES = ("events", "vocab", "shards", "export", "index")


class ModelObserver(Observer):
    """Logs metrics at the end of a run, and registers the model if it was published."""

    def __init__(self, run: Run, began: float) -> None:
        super().__init__(run, began)
        self._client = mlflow.MlflowClient()

    def run_ended(self, end: RunEnd) -> None:
        """See `Observer`."""
        if not end.result.metrics:
            return
        mlflow_run = self._find_run()
        now = int(time.time() * 1000)
        # MLflow allows no @ in a name.
        metrics = [
            Metric(name.replace("@", "_at_"), float(value), now, 0)
            for name, value in end.result.metrics.items()
        ]
        self._client.log_batch(mlflow_run, metrics=metrics)
        for stage in end.result.stages:
            self._client.set_tag(mlflow_run, f"embedmill.content.{stage.stage}", stage.content)
        self._client.set_tag(mlflow_run, "embedmill.published", str(end.result.published).lower())
        if end.now_published and self.run.config.observe.model:
            self._register(mlflow_run)
        self._client.set_terminated(mlflow_run, "FINISHED")

    def _find_run(self) -> str:
        """The MLflow run of this training, or a new one."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "embedmill")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        train = self.run.artifact("train").manifest
        tags = {"embedmill.run": self.run.storage.root, "embedmill.fingerprint": train.fingerprint}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        for one in self._client.search_runs([experiment], query, max_results=1):
            return str(one.info.run_id)
        run_name = self.run.config.run.name
        made = self._client.create_run(experiment, tags=tags, run_name=run_name)
        return str(made.info.run_id)

    def _register(self, mlflow_run: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="embedmill-model-"))
        try:
            copy_for_answers(self.run, folder / "run")
            with mlflow.start_run(run_id=mlflow_run):
                mlflow.pyfunc.log_model(
                    name="model",
                    python_model=served_model.__file__,
                    artifacts={"run": (folder / "run").as_uri()},
                    signature=_signature(),
                    pip_requirements=[f"embedmill=={__version__}"],
                    registered_model_name=self.run.config.observe.model,
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def copy_for_answers(run: Run, folder: Path) -> None:
    """Copy what `recommend` reads of a run into a folder, which `open_run` opens."""
    target = Storage(str(folder))
    target.write(CONFIG, run.storage.read(CONFIG))
    for stage in _STAGES:
        artifact = run.artifact(stage)
        own = Storage(artifact.folder)
        target.write(f"{stage}/{MANIFEST}", own.read(MANIFEST))
        below = f"{stage}/{artifact.manifest.folder}".rstrip("/")
        for entry in artifact.files():
            if stage == "events" and entry.path != ITEMS:
                continue
            with artifact.open(entry.path) as raw, target.writer(f"{below}/{entry.path}") as out:
                shutil.copyfileobj(raw, out)


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    text, number = DataType.string, DataType.long
    return ModelSignature(
        inputs=Schema([ColSpec(text, "user")]),
        outputs=Schema(
            [
                ColSpec(text, "user"),
                ColSpec(number, "rank"),
                ColSpec(text, "item"),
                ColSpec(DataType.double, "score"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("k", number, 10),
                ParamSpec("exclude_seen", DataType.boolean, True),
            ]
        ),
    )
