"""Training on nearly nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from embedmill.pipeline import train
from embedmill.pipeline.errors import ConfigError, TrainingError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from tests.support.artifacts import arrays_of
from tests.support.runs import store
from tests.support.trained import Notes, tables
from tests.support.worlds import config

NONE = arrays_of([])
SOME = arrays_of([(0, 0, 1.0), (1, 1, 2.0), (2, 2, 0.0), (0, 2, 3.0)])


def small(root: Path, splits: dict[str, Any], **changes: Any) -> Run:
    run = Run(config(root, "log.tsv", train={"dim": 64, "epochs": 2, **changes}))
    return store(run, 3, 3, {"train": SOME, "valid": NONE, "test": NONE, **splits})


def test_no_train_events(tmp_path: Path) -> None:
    run = small(tmp_path, {"train": NONE, "valid": SOME})
    with pytest.raises(TrainingError, match=r"no train events.*shards\.valid"):
        train.build(run, run.writer("train"), Quiet())


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    run, notes = small(tmp_path, {}), Notes()
    train.build(run, run.writer("train"), notes)
    model = run.artifact("train").read_json("model.json")
    assert (model["best_epoch"], model["metric"]) == (0, "")
    assert notes.texts[0] == "no validation events: the last epoch is kept"
    for key, value in (("metric", "ndcg@10"), ("refit", True)):
        changed = Run(config(tmp_path, "log.tsv", train={"dim": 64, "epochs": 2, key: value}))
        with pytest.raises(ConfigError, match=rf"train\.{key}: .*Raise shards\.valid"):
            train.build(changed, changed.writer("train"), Quiet())


def test_validation_that_only_repeats_train_events(tmp_path: Path) -> None:
    run = small(tmp_path, {"valid": SOME})
    train.build(run, run.writer("train"), Quiet())
    assert run.artifact("train").read_json("model.json")["metric"] == ""


def test_one_user_one_item_and_more_dimensions_than_rows(tmp_path: Path) -> None:
    run = Run(config(tmp_path, "log.tsv", train={"dim": 64, "epochs": 2}))
    one = arrays_of([(0, 0, 1.0)])
    store(run, 1, 1, {"train": one, "valid": NONE, "test": NONE})
    train.build(run, run.writer("train"), Quiet())
    assert tables(run)["items"].shape == (1, 64)


def test_events_of_weight_zero_teach_nothing(tmp_path: Path) -> None:
    run = small(tmp_path / "a", {})
    train.build(run, run.writer("train"), Quiet())
    users = tables(run)["users"]
    fresh = small(tmp_path / "b", {"train": arrays_of([(2, 2, 0.0)])})
    train.build(fresh, fresh.writer("train"), Quiet())
    # User 2 has a single event, of weight 0: it stays where it began.
    assert torch.equal(users[2], tables(fresh)["users"][2])
    assert not torch.equal(users[0], tables(fresh)["users"][0])
