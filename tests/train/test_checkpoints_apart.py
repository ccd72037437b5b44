"""On an object store checkpoints are seconds apart, and trainings end and resume as everywhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.checkpoints import checkpoint
from embedmill.schemas.checkpoints import POINTER
from tests.support.runs import planted
from tests.support.s3_server import S3Server, serving

# The third epoch is the best one.
EPOCHS = 6
SETTINGS = {"epochs": EPOCHS, "batch_size": 40, "patience": 0, "learning_rate": 0.02}


class StoppedHereError(Exception):
    pass


class StoppedAfter(Quiet):
    """Stops a training as the note of its n-th epoch is shown."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def note(self, text: str) -> None:
        self.epochs -= text.startswith("epoch")
        if not self.epochs:
            raise StoppedHereError


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = planted(tmp_path_factory.mktemp("local"), train=SETTINGS)
    content = build(run)
    assert run.artifact("train").manifest.counters["best_epoch"] == 3
    return content


def build(run: Run, progress: Quiet | None = None) -> str:
    train.build(run, run.writer("train"), progress or Quiet())
    return run.artifact("train").manifest.content


@pytest.mark.parametrize("refit", [False, True])
def test_none_is_written_in_a_short_training(server: S3Server, refit: bool, wanted: str) -> None:
    root = f"{server.bucket(f'short-{refit}'.lower())}/runs"
    run = planted(root, train={**SETTINGS, "refit": refit})
    server.fail()
    assert refit == (build(run) != wanted)
    files = len(run.artifact("train").manifest.files)
    assert server.counts()["PUT"] <= files + 3  # manifest, fence, log
    assert server.counts().get("DELETE", 0) <= 2


@pytest.mark.parametrize("written", [1, 4])
def test_a_stopped_one_goes_on_from_the_last_that_was_written(
    server: S3Server, wanted: str, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that after epoch `written` is due, and the training is stopped after the fifth epoch.

    The checkpoint of the fourth epoch needs the tables of the third, which were kept in memory.
    """
    run = planted(f"{server.bucket(f'stopped-{written}')}/runs", train=SETTINGS)
    asked = []

    def due(checkpoints: checkpoint.Checkpoints) -> bool:
        asked.append(1)
        if len(asked) > written:
            checkpoints.finish()  # a thread has written it
        return len(asked) == written

    monkeypatch.setattr(checkpoint.Checkpoints, "due", due)
    with pytest.raises(StoppedHereError):
        build(run, StoppedAfter(5))
    assert run.storage.exists(f"train/{POINTER.path}")
    monkeypatch.setattr(checkpoint.Checkpoints, "due", lambda _: False)
    assert build(run) == wanted
    assert "checkpoints" not in run.storage.at("train").folders()
