"""Readers of artifacts that were written by hand: rows, ids, events, metadata."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedmill.pipeline.errors import ContractError, CorruptArtifactError, InputError
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.events import Events
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.pipeline.views.row_files import RowFiles
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vectors import LiveVectors, Vectors
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.manifest import FileEntry
from tests.support.artifacts import reseal
from tests.support.runs import clusters, finished

USERS = [f"u{n}" for n in range(9)]


def stored(root: Path | str, **changes: object) -> Run:
    """Nine users in three files of the vocabulary, of whom u4 is retired; events by hand."""
    world = dataclasses.replace(
        clusters(users=9, items=7),
        vocab_rows=4,
        retired=frozenset({"u4"}),
        splits={
            "train": [(0, 1, 2.0), (4, 2, 1.0), (1, 3, 5.0)],
            "valid": [(0, 2, 1.0)],
            "test": [(1, 0, 3.0)],
        },
        **changes,  # type: ignore[arg-type]
    )
    return world.store(root, run={"partitions": 3})


def test_rows_are_found_in_their_files(tmp_path: Path) -> None:
    files = RowFiles(stored(tmp_path).artifact("vocab"), "users")
    assert (files.count, len(files), files.starts.tolist()) == (9, 3, [0, 4, 8, 9])
    assert files.file_of(np.array([0, 3, 4, 8])).tolist() == [0, 0, 1, 2]
    groups = [(n, p.tolist(), w.tolist()) for n, p, w in files.grouped(np.array([8, 1, 7, 0]))]
    assert groups == [(0, [1, 3], [1, 0]), (1, [2], [3]), (2, [0], [0])]
    assert pickle.loads(pickle.dumps(files)).count == 9  # noqa: S301


def test_ids_to_rows_and_back(tmp_path: Path) -> None:
    users = Vocabulary.of(stored(tmp_path).artifact("vocab"), "users")
    rows = users.rows_of(pa.array(["u8", "nobody", None, "u0", "u4", "u8"]))
    assert rows.tolist() == [8, -1, -1, 0, 4, 8]
    assert users.ids(np.array([8, 0, 4, 0])) == ["u8", "u0", "u4", "u0"]
    assert [users.row_of(raw) for raw in USERS] == list(range(9))
    with pytest.raises(InputError, match='no user "u9" among 9'):
        users.row_of("u9")


def test_retired_rows_keep_their_id(tmp_path: Path) -> None:
    users = Vocabulary.of(stored(tmp_path).artifact("vocab"), "users")
    assert np.flatnonzero(~users.live()).tolist() == [4]
    assert users.row_of("u4") == 4
    users.check_live(3)
    with pytest.raises(InputError, match='user "u4" is retired'):
        users.check_live(4)


def test_a_row_that_is_shared_has_no_id(tmp_path: Path) -> None:
    world = clusters(users=9, items=7)
    items = [*world.items[:6], None]
    run = dataclasses.replace(world, items=items, retired=frozenset({None})).store(tmp_path)
    vocabulary = Vocabulary.of(run.artifact("vocab"), "items")
    assert vocabulary.ids(np.array([6, 5])) == [None, "i5"]
    assert vocabulary.rows_of(pa.array([None], pa.string())).tolist() == [-1]


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_blocks_end_with_their_file(tmp_path: Path, size: int) -> None:
    vocabulary = Vocabulary.of(stored(tmp_path).artifact("vocab"), "users")
    blocks = list(vocabulary.blocks(size))
    assert [raw for _, table in blocks for raw in table["id"].to_pylist()] == USERS
    assert all(table.num_rows <= size for _, table in blocks)
    assert {0, 4, 8} <= {first for first, _ in blocks}


def test_rows_out_of_order_are_refused(tmp_path: Path) -> None:
    vocab = stored(tmp_path).artifact("vocab")
    path = vocab.storage.local_path("users/part-00001.parquet")
    table = pa.parquet.read_table(path)
    pa.parquet.write_table(table.take([1, 0, 2, 3]), path)
    vocab = reseal(vocab, "users/part-00001.parquet")
    with pytest.raises(ContractError, match="rows are not dense and in order"):
        list(Vocabulary.of(vocab, "users").blocks(4))


def test_events_by_split_and_partition(tmp_path: Path) -> None:
    shards = Shards(stored(tmp_path).artifact("shards"))
    assert (shards.partitions, shards.count("train")) == (3, 3)
    assert [shards.rows("train", p) for p in range(3)] == [1, 2, 0]
    user, weight = shards.read("train", 1, ["user_row", "weight"])
    assert (user.tolist(), weight.tolist()) == ([1, 4], [5.0, 1.0])  # by hash
    (item,) = shards.concatenated(["train", "test"], [0, 1], ["item_row"])
    assert item.tolist() == [1, 3, 2, 0]
    assert shards.rows("pairs", 0) == 0


@pytest.mark.parametrize(
    ("events", "groups"),
    [(100, [[0, 1, 2]]), (2, [[0], [1], [2]]), (3, [[0], [1, 2]]), (5, [[0, 1, 2]])],
)
def test_groups_of_partitions(tmp_path: Path, events: int, groups: list[list[int]]) -> None:
    # Partitions have 2, 3 and 0 events; one with more than the limit is a group of its own.
    found = Shards(stored(tmp_path).artifact("shards")).groups(events)
    assert [p for group in found for p in group] == [0, 1, 2]
    assert found == groups


def test_a_shard_that_was_cut_is_refused(tmp_path: Path) -> None:
    shards = stored(tmp_path).artifact("shards")
    path = shards.storage.local_path("train/part-00001.parquet")
    whole = path.read_bytes()
    pa.parquet.write_table(pa.parquet.read_table(path).slice(0, 1), path)
    shards = reseal(shards, "train/part-00001.parquet")
    with pytest.raises(ContractError, match="has 1 rows, the manifest says 2"):
        Shards(shards).read("train", 1, ["user_row"])
    path.write_bytes(whole[:-20])
    with pytest.raises(CorruptArtifactError, match="is damaged"):
        Shards(shards).read("train", 1, ["user_row"])
    path.unlink()
    with pytest.raises(CorruptArtifactError, match="missing"):
        Shards(shards).read("train", 1, ["user_row"])


def test_titles_and_categories(tmp_path: Path) -> None:
    titles = ["Heat", "heat", "Alien", "Seven", "Brazil", "Ran", ""]
    run = stored(tmp_path, titles=titles, categories=[["crime"], *[[]] * 6])
    items = Events(run.artifact("events")).items
    assert items.exists
    assert items.describe(["i0", "i2", "nothing"]) == {
        "i0": ("Heat", ["crime"]), "i2": ("Alien", []),
    }  # fmt: skip
    assert items.titles(["i3"]) == {"i3": "Seven"}
    assert items.ids_titled(["HEAT", "Ran", "Up"]) == {
        "HEAT": ["i0", "i1"],
        "Ran": ["i5"],
        "Up": [],
    }
    assert items.table(["title"])["title"].to_pylist() == titles


def test_a_log_without_metadata_or_times(tmp_path: Path) -> None:
    events = Events(stored(tmp_path).artifact("events"))
    assert not events.items.exists
    assert events.items.describe(["i0"]) == {}
    assert events.items.table().num_rows == ItemMetadata(None).table(["item"]).num_rows == 0
    assert events.days() is None
    assert list(events.rejects()) == []
    assert [entry.rows for entry in events.files] == [5]


def exported(root: Path) -> Vectors:
    world = dataclasses.replace(
        clusters(users=9, items=30), retired=frozenset({"i3", "i4"}), model={"similarity": "dot"}
    )
    return Vectors.of(finished(world, root).artifact("export"), "items")


def test_live_vectors(tmp_path: Path) -> None:
    vectors = exported(tmp_path)
    whole_ND, rows = vectors.load(), [*range(3), *range(5, 30)]
    for size in (0, 7):
        blocks = list(vectors.live_blocks(size))
        assert np.concatenate([block.row_N for block in blocks]).tolist() == rows
        assert np.array_equal(np.concatenate([b.vector_ND for b in blocks]), whole_ND[rows])
    (block,) = vectors.live_blocks(vectors=False)
    assert block.vector_ND.shape == (28, 0)
    chosen = vectors.select([9, 0, 5], 4)
    assert (chosen.ids.to_pylist(), chosen.row_N.tolist()) == (["i9", "i0", "i5"], [9, 0, 5])
    assert np.array_equal(chosen.vector_ND, whole_ND[[9, 0, 5]])
    assert len(vectors.select([]).row_N) == 0
    matrix = vectors.matrix()
    assert matrix is not None
    assert np.array_equal(matrix, whole_ND)


def test_positions_of_live_vectors(tmp_path: Path) -> None:
    vectors = exported(tmp_path)
    live = LiveVectors.of(vectors)
    assert (live.items, live.dim, len(live.files)) == (28, 8, 1)
    assert live.read_ids(live.files[0])["id"].to_pylist()[2:4] == ["i2", "i5"]
    assert np.array_equal(live.gather(np.array([3, 0])), vectors.load()[[5, 0]])


@pytest.mark.parametrize(
    "line",
    [
        b"\xff", b"", b"7", b"[" * 100_000, b"{}", b'{"kind": ["steps"]}', b'{"kind": "other"}',
        b'{"kind": "steps", "pairs": 4}', b'{"kind": "steps", "pairs": "4", "seconds": 1.0}',
        b'{"kind": "steps", "pairs": 1' + b"0" * 400 + b', "seconds": 1.0}',
        b'{"kind": "epoch", "seconds.loss": null}', b'{"kind": "start", "workers": true}',
    ],
)  # fmt: skip
def test_a_log_of_a_training_that_is_none(tmp_path: Path, line: bytes) -> None:
    train = stored(tmp_path).artifact("train")
    good = b'{"kind": "start", "workers": 2}\n{"kind": "end", "seconds": 1}\n'
    train.storage.write("log.jsonl", good)
    files = [FileEntry(path="log.jsonl", bytes=0, sha256="0" * 64)]
    train = dataclasses.replace(train, manifest=train.manifest.model_copy(update={"files": files}))
    train = reseal(train, "log.jsonl")
    assert [one["kind"] for one in Training(train).log()] == ["start", "end"]
    train.storage.write("log.jsonl", good + line + b"\n")
    with pytest.raises(ContractError, match="line 3 is not one of a log of a training"):
        Training(reseal(train, "log.jsonl")).log()
