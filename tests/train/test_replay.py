"""Training from an earlier run takes new events and some old ones; new ids begin without noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run, save_config
from embedmill.pipeline.train.assembly import WorkerTask, load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.trainer import Trainer
from tests.support.artifacts import arrays_of, vocabulary, write_events, write_shards, write_vocab
from tests.support.ranks import run_ranks
from tests.support.trained import OBJECTIVES, tables, train_rank
from tests.support.worlds import PlantedWorld, config

WORLD = PlantedWorld(60, 40, 4)
ALL = WORLD.last_splits()
# Known to the first night. Of u2's events of i<n> it has one, of two.
OLD = {k: [e for e in v if e[0] < 50] for k, v in ALL.items()}
AGAIN = next(e for e in OLD["train"] if e[0] == 2)
NOW = {**ALL, "train": [*ALL["train"], AGAIN]}
NEW_TRAIN = sorted([(u, i) for u, i, _ in ALL["train"] if u >= 50] + [AGAIN[:2]])
DESCRIBED = {
    "item": ["i40", "i41", *(f"i{n}" for n in range(0, 40, 4))],
    "title": ["", "Blue  moon", *("moon" if n == 8 else "" for n in range(0, 40, 4))],
    "categories": [["a"], [], *(["a", "b"] if n in (0, 4) else ["b"] if n == 12 else []
                                for n in range(0, 40, 4))],
}  # fmt: skip


def night(root: Path, name: str, splits: Any, items: int = 40, **train_keys: Any) -> Run:
    """A run over events by row; `items` rows, described by `DESCRIBED`."""
    keys = {
        **OBJECTIVES[str(train_keys.get("objective", "softmax"))],
        "refit": False,
        "patience": 0,
    }
    keys |= {"workers": 1, **train_keys}
    partitions = 4 if name == "a" else 3
    run = Run(config(root, "log.tsv", run={"name": name, "partitions": partitions}, train=keys))
    sides = [vocabulary([f"{s}{row}" for row in range(n)], [1] * n)
             for s, n in (("u", 50 if name == "a" else 60), ("i", items))]  # fmt: skip
    total = sum(map(len, splits.values()))
    write_events(run, total, items=DESCRIBED)
    write_vocab(run, *sides, total)
    write_shards(run, {k: arrays_of(v) for k, v in splits.items()})
    save_config(run)
    return run


def built(run: Run) -> Run:
    train.build(run, run.writer("train", train.sources(run)), Quiet())
    return run


def loaded(run: Run) -> Trainer:
    task = WorkerTask.of(run, run.writer("train", train.sources(run)))
    return load_trainer(task, train.Group.current(), Cursor())


def taken(run: Run) -> list[tuple[int, int]]:
    """The pairs that an epoch takes."""
    data = loaded(run).data
    assert (data.plan.events, len(data.events)) == (len(data.taken), len(NOW["train"]))
    return sorted(zip(data.taken.user_E.tolist(), data.taken.item_E.tolist(), strict=True))


def test_an_epoch_takes_all_new_events_and_a_share_of_the_old_ones(tmp_path: Path) -> None:
    first = built(night(tmp_path, "a", OLD, start="published"))
    every = sorted((u, i) for u, i, _ in NOW["train"])
    none = night(tmp_path, "b0", NOW, start="a", replay=0)
    assert taken(none) == NEW_TRAIN
    half = taken(night(tmp_path, "b1", NOW, start="a", replay=0.5))
    assert len(NEW_TRAIN) + 0.35 * (len(every) - len(NEW_TRAIN)) < len(half) < 0.8 * len(every)
    left = list(half)
    for pair in NEW_TRAIN:  # each of them is there
        left.remove(pair)
    assert taken(night(tmp_path, "b2", NOW, start="a", replay=1)) == every
    quarter = taken(night(tmp_path, "b3", NOW, start="a"))
    assert len(NEW_TRAIN) < len(quarter) < len(half)
    assert taken(night(tmp_path, "b4", NOW, replay=0)) == every  # no start
    # With nothing new and nothing drawn an epoch takes everything.
    same = night(tmp_path, "a2", OLD, start="a", replay=0)
    assert len(loaded(same).data.taken) == len(OLD["train"])
    # What epochs took is counted; a refit takes the new validation events, too.
    whole = built(night(tmp_path, "b5", NOW, start="a", replay=0, refit=True)).artifact("train")
    valid = sum(u >= 50 for u, _, _ in NOW["valid"])
    # The first night was not trained on its validation events, so all of them are new.
    valid += sum(u < 50 for u, _, _ in NOW["valid"])
    best = whole.counters["best_epoch"]
    assert whole.counters["pairs"] == len(NEW_TRAIN) + best * (len(NEW_TRAIN) + valid)
    assert first.artifact("train").counters["pairs"] == 4 * len(OLD["train"])


def test_two_workers_replay_alike(tmp_path: Path) -> None:
    built(night(tmp_path, "a", OLD, start="published"))
    one = built(night(tmp_path, "b", NOW, start="a", replay=0.3))
    other = night(tmp_path / "2", "b", NOW, start=str(tmp_path / "a"), replay=0.3)
    answers = run_ranks(train_rank, 2, tmp_path, other, 0)
    assert all(isinstance(answer, train.TrainingResult) for answer in answers), answers
    assert answers[0].pairs == one.artifact("train").counters["pairs"]
    for name, got in tables(other).items():
        torch.testing.assert_close(got, tables(one)[name], rtol=1e-3, atol=1e-4)


def test_new_ids_without_events_begin_at_what_is_like_them(tmp_path: Path) -> None:
    """i40 has a category, i41 a word of its title in common, i42 and user u59 nothing."""
    built(night(tmp_path, "a", OLD, start="published"))
    few = {k: [e for e in v if e[0] != 59] for k, v in ALL.items()}
    model = loaded(night(tmp_path, "b", few, items=43, start="a")).model
    items, users = (
        table.weight[table.embedding.local_index(torch.arange(table.embedding.rows)), :6]
        for table in (model.items, model.users)
    )

    def unit(vectors: torch.Tensor) -> np.ndarray[Any, Any]:
        return torch.nn.functional.normalize(vectors.sum(0), dim=0).numpy()

    known = [n for n in range(40) if (items[n] != 0).any()]
    length = float(items[:40].norm(dim=1).mean())
    for row, like in ((40, items[[0, 4]]), (41, items[[8]]), (42, items[known])):
        np.testing.assert_allclose(unit(items[row : row + 1]), unit(like), atol=1e-5)
        np.testing.assert_allclose(float(items[row].norm()), length, rtol=1e-4)
    np.testing.assert_allclose(unit(users[59:]), unit(users[:50]), atol=1e-5)


def test_new_events_move_spectral_items(tmp_path: Path) -> None:
    """i40 gets the users of i0, all of them tonight: it is where i0 is, and others hardly move."""
    keys = {"objective": "spectral", "dim": 6, "epochs": 1, "spectral": {"passes": 60}}
    everybody = {k: [e for e in v if e[0] < 50] for k, v in ALL.items()}
    before = tables(built(night(tmp_path, "a", everybody, **keys)))
    alike = [(u, 40, w) for u, i, w in everybody["train"] if i == 0]
    assert len(alike) > 1
    now = {**everybody, "train": [*everybody["train"], *alike]}
    run = night(tmp_path, "b", now, items=41, start="a", **keys)
    assert loaded(run).data.new is not None
    after = tables(built(run))
    score = [one["users"][:50] @ one["items"].T for one in (before, after)]
    np.testing.assert_allclose(score[1][:, 40], score[1][:, 0], rtol=0.2, atol=0.01)
    cosine = torch.nn.functional.cosine_similarity(after["items"][40], after["items"][0], dim=0)
    assert float(cosine) > 0.95
    same = [n for n in range(1, 40) if (before["items"][n] != 0).any()]
    moved = (score[1][:, same] - score[0][:, same]).norm() / score[0][:, same].norm()
    assert float(moved) < 0.2
