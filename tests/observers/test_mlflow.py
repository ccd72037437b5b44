"""MLflow's registry: the published run as a model that recommends. Run by `make test-stores`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from embedmill.jobs.observers import RunEnd
from embedmill.pipeline.query.lookup import recommend
from embedmill.schemas.run import RunResult
from tests.support.runs import clusters, finished

mlflow = pytest.importorskip("mlflow", reason="`make test-stores` runs it")


@pytest.mark.filterwarnings("ignore")
def test_the_registered_model_recommends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    from embedmill.jobs.observers.mlflow_run import ModelObserver

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # artifacts go to ./mlruns
    world = clusters()
    world.titles = [f"Title {i}" for i in range(len(world.items))]
    run = finished(world, tmp_path / "runs", index={"kind": "flat"}, observe={"model": "plays"})
    result = RunResult(
        run=run.config.run.name, uri=run.storage.root, vars={}, state="done", exit_code=0,
        stages=[], published=True, not_published="", gates=[], metrics={"recall@10": 0.25},
        seconds=1.0, failure=None,
    )  # fmt: skip
    want = {user: recommend(run, user, 4) for user in ("u1", "u7")}
    ModelObserver(run, 0.0).run_ended(RunEnd(result, True, 0.0))
    shutil.rmtree(tmp_path / "runs")
    client = mlflow.MlflowClient()
    (version,) = client.search_model_versions("name = 'plays'")
    stored = client.get_run(version.run_id)
    assert stored.data.metrics["recall_at_10"] == 0.25
    assert (stored.info.status, stored.data.tags["embedmill.published"]) == ("FINISHED", "true")
    model = mlflow.pyfunc.load_model("models:/plays/1")
    users = pd.DataFrame({"user": ["u1", "nobody", "u7"]})
    got = model.predict(users, params={"k": 4})
    assert got["user"].tolist() == ["u1"] * 4 + ["u7"] * 4
    assert got["item"].tolist() == [hit.item for user in ("u1", "u7") for hit in want[user]]
    assert got["score"].tolist() == pytest.approx(
        [hit.score for user in ("u1", "u7") for hit in want[user]]
    )
    assert got["rank"].tolist() == [1, 2, 3, 4] * 2
