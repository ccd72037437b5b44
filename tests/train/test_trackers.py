"""TensorBoard and MLflow show the lines of the log; training does not depend on them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline import train
from embedmill.pipeline.errors import ConfigError, MachineError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.logs.trackers import TRACKERS, TrackerKind
from tests.support.runs import planted

SETTINGS = {"epochs": 2, "batch_size": 40, "log_steps": 4, "checkpoint_copy_mib": 0}


class Stops(Quiet):
    """Keeps the notes; ends training at the n-th step."""

    def __init__(self, step: int = 0) -> None:
        self.left = step
        self.notes: list[str] = []

    def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


def lines(run: Run) -> list[dict[str, Any]]:
    text = run.artifact("train").read("log.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard would draw: values by name and step, purged ones left out."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            if event.HasField("session_log"):
                for values in found.values():
                    for step in [s for s in values if s >= event.step]:
                        del values[step]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_tensorboard_draws_the_log_through_a_resume(tmp_path: Path) -> None:
    run = planted(tmp_path, train={**SETTINGS, "track": "tensorboard", "checkpoint_steps": 4})
    with pytest.raises(KeyboardInterrupt):
        train.build(run, run.writer("train"), Stops(9 + 7))
    train.build(run, run.writer("train"), Quiet())
    found, written = scalars(tmp_path / "tiny" / "tensorboard"), lines(run)
    for kind, name in (("steps", "train_loss"), ("epoch", "ndcg@10"), ("steps", "learning_rate")):
        expected = {line["at"]: line[name] for line in written if line["kind"] == kind}
        assert found[f"{kind}/{name.replace('@', '_at_')}"] == pytest.approx(expected)
    assert [line["at"] for line in written if line["kind"] == "start"] == [0, 13]
    shares = [values for name, values in found.items() if name.startswith("share/")]
    for at in {line["at"] for line in written if line["kind"] == "epoch"}:
        assert sum(values[at] for values in shares) == pytest.approx(1, abs=1e-3)
    assert "tensorboard" not in str(run.artifact("train").files())


def test_mlflow_keeps_one_run_through_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny, elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = planted(tmp_path, train={**SETTINGS, "track": ["mlflow"], "checkpoint_steps": 4})
    with pytest.raises(KeyboardInterrupt):
        train.build(run, run.writer("train"), Stops(9 + 7))
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("embedmill").experiment_id
    assert [r.info.status for r in client.search_runs([experiment])] == ["KILLED"]
    train.build(run, run.writer("train"), Quiet())
    (kept,) = client.search_runs([experiment])
    assert kept.info.status == "FINISHED"
    assert kept.data.params["train.dim"] == "8"
    expected = [line for line in lines(run) if line["kind"] == "epoch"]
    history = client.get_metric_history(kept.info.run_id, "epoch/ndcg_at_10")
    assert {m.step: m.value for m in history} == pytest.approx(
        {line["at"]: line["ndcg@10"] for line in expected}
    )


def test_names_are_checked_before_anything_runs(tmp_path: Path) -> None:
    run = planted(tmp_path, train={"track": "wandb"})
    with pytest.raises(ConfigError, match=r"train\.track: unknown tracker 'wandb'; allowed: tens"):
        train.build(run, run.writer("train"), Quiet())
    far = planted(f"memory://{tmp_path.name}-track", train={"track": "tensorboard"})
    with pytest.raises(ConfigError, match=r"train\.track: tensorboard writes to a local disk"):
        train.build(far, far.writer("train"), Quiet())


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = TrackerKind(TRACKERS["mlflow"].make, ("no_such_module",), "mlflow-skinny", "")
    monkeypatch.setitem(TRACKERS, "mlflow", absent)
    run = planted(tmp_path, train={"track": "mlflow"})
    with pytest.raises(ConfigError, match=r"train\.track: mlflow is not installed\. pip install"):
        train.build(run, run.writer("train"), Quiet())


def test_a_tracker_that_cannot_begin(tmp_path: Path) -> None:
    run = planted(tmp_path, train={"track": "tensorboard"})
    run.storage.write("tensorboard", b"a file where the folder should be")
    with pytest.raises(MachineError, match=r"train\.track: tensorboard cannot be used: .*run\.ro"):
        train.build(run, run.writer("train"), Quiet())


class Breaks:
    def __init__(self, run: Run) -> None:
        self.seen = 0

    def start(self, at: int) -> None:
        pass

    def show(self, metrics: dict[str, float], at: int) -> None:
        self.seen += 1
        if self.seen == 2:
            raise ConnectionError("the server is gone\nand more")

    def close(self, *, finished: bool) -> None:
        raise AssertionError("left out by then")


def test_a_tracker_that_fails_half_way_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "breaks", TrackerKind(Breaks, ("json",), "", ""))
    run, progress = planted(tmp_path, train={**SETTINGS, "track": "breaks"}), Stops()
    train.build(run, run.writer("train"), progress)
    left_out = [note for note in progress.notes if "breaks" in note]
    assert left_out == ["breaks is left out from here on: the server is gone"]
    assert run.up_to_date("train")
