"""Training that starts from an earlier run: rows by id, fewer epochs, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedmill.pipeline import train
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run, save_config
from embedmill.pipeline.train.assembly import WorkerTask, load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.start import find_start
from tests.support.artifacts import arrays_of, vocabulary, write_events, write_shards, write_vocab
from tests.support.ranks import run_ranks
from tests.support.trained import OBJECTIVES, Notes, tables, train_rank
from tests.support.worlds import PlantedWorld, config

WORLD = PlantedWorld(60, 40, 4)
NEW = 3  # users, and items, that only the second run has


def night(root: Path, name: str, objective: str, **train_keys: Any) -> Run:
    """A run over the planted world; the second one has other rows, and some ids more."""
    keys = {**OBJECTIVES[objective], "refit": False, "patience": 0, "workers": 1, **train_keys}
    pairs = {"pairs": {}} if objective == "item2vec" else {}
    run = Run(config(root, "log.tsv", run={"name": name, "partitions": 4 if name == "a" else 3},
                     train=keys, shards=pairs))  # fmt: skip
    users, items = ([f"{s}{row}" for row in range(n)] for s, n in (("u", 60), ("i", 40)))
    splits = WORLD.last_splits()
    if name == "a":
        splits = {k: [p for p in v if p[0] < 60 - NEW and p[1] < 40 - NEW]
                  for k, v in splits.items()}  # fmt: skip
        users, items = users[:-NEW], items[:-NEW]
    else:
        order = {s: np.random.default_rng(5).permutation(len(ids)).tolist()
                 for s, ids in (("u", users), ("i", items))}  # fmt: skip
        splits = {k: [(order["u"].index(u), order["i"].index(i), w) for u, i, w in v]
                  for k, v in splits.items()}  # fmt: skip
        users, items = [users[n] for n in order["u"]], [items[n] for n in order["i"]]
    total = sum(map(len, splits.values()))
    write_events(run, total)
    write_vocab(
        run, vocabulary(users, [1] * len(users)), vocabulary(items, [1] * len(items)), total
    )
    write_shards(run, {k: arrays_of(v) for k, v in splits.items()})
    save_config(run)
    return run


def built(run: Run) -> Run:
    train.build(run, run.writer("train", train.sources(run)), Quiet())
    return run


def ids(run: Run, side: str) -> list[str]:
    return run.artifact("vocab").read_tables(side, ["id"])["id"].to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("objective", ["softmax", "rating", "item2vec", "ials"])
def test_rows_and_optimizer_state_are_those_of_the_same_ids(objective: str, tmp_path: Path) -> None:
    first = built(night(tmp_path, "a", objective, start="published"))
    second = night(tmp_path, "b", objective, start="a")
    task = WorkerTask.of(second, second.writer("train", train.sources(second)))
    assert task.run.config.train.epochs == 1  # a quarter
    trainer = load_trainer(task, train.Group.current(), Cursor())
    assert trainer.runtime.started
    source = load_trainer(
        WorkerTask.of(first, first.writer("train")), train.Group.current(), Cursor()
    )
    for partition in range(first.config.run.partitions):
        stored = first.artifact("train").has(f"state/part-{partition:05d}.safetensors")
        assert stored == (objective != "ials")
        if stored:
            from safetensors.torch import load

            data = first.artifact("train").read(f"state/part-{partition:05d}.safetensors")
            source.model.load_partition(partition, load(data))
        else:
            published = {f"{n}.weight": load_table(first, n, partition) for n in ("users", "items")}
            source.model.load_partition(partition, published)
    for name in ("users", "items"):
        side = "items" if objective == "item2vec" else name
        before, now = (getattr(one.model, name) for one in (source, trainer))
        for key in ("weight", *before.state):
            old, new = (by_id(one, run, side, key) for one, run in ((before, first), (now, second)))
            for raw in old.keys() & new.keys():
                assert torch.equal(old[raw], new[raw])
        fresh = [one for one in by_id(now, second, side, "weight") if one not in ids(first, side)]
        assert len(fresh) == NEW
        dim = now.columns[0].stop
        lengths = [by_id(now, second, side, "weight")[one][:dim].norm() for one in fresh]
        typical = torch.stack(
            [v[:dim].norm() for v in by_id(before, first, side, "weight").values()]
        )
        assert all(float(one) == pytest.approx(float(typical.mean()), rel=0.05) for one in lengths)


def load_table(run: Run, name: str, partition: int) -> torch.Tensor:
    from safetensors.torch import load

    data = run.artifact("train").read(f"{name}/part-{partition:05d}.safetensors")
    return load(data)["weight"]


def by_id(table: Any, run: Run, side: str, key: str) -> dict[str, torch.Tensor]:
    tensor = table.weight if key == "weight" else table.state[key]
    rows = torch.arange(table.embedding.rows)
    return dict(zip(ids(run, side), tensor[table.embedding.local_index(rows)], strict=True))


def test_a_few_passes_from_converged_vectors_are_enough(tmp_path: Path) -> None:
    """Spectral vectors of the same events stay what they are, up to the axes."""
    built(night(tmp_path, "b", "spectral", spectral={"passes": 60}, epochs=1))
    cold = tables(Run(config(tmp_path, "x", run={"name": "b", "partitions": 3})))
    second = built(night(tmp_path / "2", "b", "spectral", start=str(tmp_path / "b"), epochs=1))
    warm = tables(second)
    score, again = cold["users"] @ cold["items"].T, warm["users"] @ warm["items"].T
    torch.testing.assert_close(score, again, rtol=1e-3, atol=1e-4)
    assert second.artifact("train").counters["steps"] == 1


def test_two_workers_start_alike(tmp_path: Path) -> None:
    built(night(tmp_path, "a", "softmax", start="published"))
    one = built(night(tmp_path, "b", "softmax", start="a"))
    other = night(tmp_path / "2", "b", "softmax", start=str(tmp_path / "a"))
    assert one.writer("train", train.sources(one)).fingerprint == (
        other.writer("train", train.sources(other)).fingerprint
    )
    answers = run_ranks(train_rank, 2, tmp_path, other, 0)
    assert all(isinstance(answer, train.TrainingResult) for answer in answers), answers
    for name, got in tables(other).items():
        torch.testing.assert_close(got, tables(one)[name], rtol=1e-3, atol=1e-4)


def test_what_a_start_cannot_be_is_refused_with_the_reason(tmp_path: Path) -> None:
    whole = built(night(tmp_path, "a", "ials"))
    night(tmp_path, "unfinished", "ials")
    for name, path, before, after in (
        ("damaged", "train/manifest.json", b'"seconds"', b'"secs"'),
        ("newer", "train/manifest.json", b'"format": 1', b'"format": 9'),
        ("schema", "vocab/manifest.json", b'"version": 2', b'"version": 3'),
    ):
        shutil.copytree(whole.storage.root, tmp_path / name)
        data = (tmp_path / name / path).read_bytes()
        assert before in data
        (tmp_path / name / path).write_bytes(data.replace(before, after))
    for keys, said in (
        ({"start": "unfinished"}, "stage 'train' has not finished"),
        ({"start": "damaged"}, "its bytes are not those that were written"),
        ({"start": "newer"}, "is in format 9, this program reads format 1"),
        ({"start": "schema"}, "its bytes are not those that were written"),
        ({"start": "a", "dim": 5, "ials": {"block_size": 0}}, "its train.dim is 6, here it is 5"),
        ({"start": "b"}, "it is this run itself"),
        ({"start": "nowhere"}, "no run here"),
    ):
        run = night(tmp_path, f"b{len(said)}" if "itself" not in said else "b", "ials", **keys)
        with pytest.raises(ConfigError, match=said):
            train.check_settings(run)
        cold = config(tmp_path, "x", run={"name": run.config.run.name, "partitions": 3},
                      train={**OBJECTIVES["ials"], **keys, "start_fallback": "cold"})  # fmt: skip
        start, reason = find_start(Run(cold))
        assert start is None
        assert said in reason
    nothing_yet = night(tmp_path / "first", "b", "ials", start="published")
    assert find_start(nothing_yet) == (None, "")
    other = night(tmp_path, "c", "softmax", start="a", start_fallback="cold")
    notes = Notes()
    train.check(other, notes)
    assert any("its train.objective is 'ials', here it is 'softmax'" in one for one in notes.texts)
