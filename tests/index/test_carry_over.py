"""The index stage on nights that follow one another, vectors mostly as they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.jobs import export as export_job
from embedmill.jobs import index as index_job
from embedmill.pipeline.errors import ConfigError, ContractError
from embedmill.pipeline.export import vector_ranges
from embedmill.pipeline.index import open_index
from embedmill.pipeline.index.incremental.incremental_files import open_incremental
from embedmill.pipeline.index.kinds.flat import Flat
from embedmill.pipeline.index.sharded import sharded_build
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run, save_config
from embedmill.pipeline.views.index import StoredIndex
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.export import FILES
from embedmill.schemas.files import PartFiles
from embedmill.schemas.index import SPEC
from tests.support.artifacts import reseal
from tests.support.crash_roots import uncopied
from tests.support.runs import StoredRun, clusters

ITEMS = 60
INDEX = {"kind": "hnsw", "carry_over": 0.5}


def stored(world: StoredRun, root: Path | str, name: str, **index: Any) -> Run:
    """A finished index, built on what came before where there is something."""
    sections = {"run": {"name": name}, "vocab": {"previous": "x"}, "index": {**INDEX, **index}}
    run = world.store(root, **sections)
    save_config(run)
    export_job.build(run, run.writer("export"), Quiet())
    index_job.build(run, run.writer("index", index_job.sources(run)), Quiet())
    return run


def first() -> StoredRun:
    return clusters(items=ITEMS)


def second(before: Run) -> StoredRun:
    """Items 0 and 7 are gone, 3 and 11 point elsewhere, 60 to 62 are new."""
    world = first()
    item_ND = np.concatenate((world.item_ND, world.item_ND[:3] + 0.01))
    item_ND[[3, 11]] = item_ND[[14, 22]] + 0.02
    return dataclasses.replace(
        world,
        items=[*world.items, "i60", "i61", "i62"],
        item_ND=item_ND,
        retired=frozenset({"i0", "i7"}),
        continues=before.storage.root,
    )


def third(before: Run) -> StoredRun:
    """Item 62 is gone again, 7 is back, 5 points elsewhere."""
    world = second(before)
    item_ND = world.item_ND.copy()
    item_ND[5] = item_ND[16] + 0.02
    return dataclasses.replace(world, item_ND=item_ND, retired=frozenset({"i0", "i62"}))


def answers(run: Run, k: int) -> list[list[int]]:
    users = Vectors.of(run.artifact("export"), "users").load()
    return open_index(run.artifact("index")).search(users, k)[1].tolist()


def exact(run: Run, k: int) -> list[list[int]]:
    items = Vectors.of(run.artifact("export"), "items")
    rows = np.flatnonzero(items.live())
    users = Vectors.of(run.artifact("export"), "users").load()
    return rows[Flat().build(items.gather(rows), {}, 0).search(users, k)[1]].tolist()


def test_two_nights_and_a_third(tmp_path: Path) -> None:
    one = stored(first(), tmp_path, "one")
    assert one.artifact("index").read_json("spec.json")["incremental"] is None
    two = stored(second(one), tmp_path, "two")
    art = two.artifact("index")
    assert art.counters == {
        "items_in": 63, "indexed": 61, "not_live": 2, "queries": 40,
        "kept": 56, "changed": 2, "new": 3, "removed": 2, "indexed_before": 60,
        "base_slots": 60, "tombstones": 4, "in_base": 56, "in_delta": 5,
    }  # fmt: skip
    assert art.read("items.faiss") == one.artifact("index").read("items.faiss")
    assert answers(two, 10) == exact(two, 10)
    assert sorted(answers(two, 61)[0]) == [r for r in range(63) if r not in (0, 7)]
    assert art.read_json("recall.json")["recall@10"] == 1.0
    assert open_index(art).ids(np.array([62, 8, 3])) == ["i62", "i8", "i3"]
    three = stored(third(two), tmp_path, "three")
    counters = three.artifact("index").counters
    assert [counters[n] for n in ("kept", "changed", "new", "removed")] == [59, 1, 1, 1]
    # Items 3 and 11 are in the delta as last night; 7's place in the base stays a tombstone.
    assert [counters[n] for n in ("base_slots", "in_base", "in_delta")] == [60, 55, 6]
    assert three.artifact("index").read("items.faiss") == art.read("items.faiss")
    assert answers(three, 10) == exact(three, 10)


def test_the_same_nights_have_the_same_content(tmp_path: Path) -> None:
    contents = []
    for name in "ab":
        one = stored(first(), tmp_path / name, "one")
        two = stored(second(one), tmp_path / name, "two")
        contents.append(two.artifact("index").manifest.content)
        assert index_job.sources(two) == {"index.previous": one.artifact("index").manifest.content}
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    "index", [{"carry_over": 0.1}, {"carry_over": 0}, {"hnsw": {"m": 8}}, {"kind": "flat"}]
)
def test_built_anew_as_if_there_had_been_nothing(tmp_path: Path, index: dict[str, Any]) -> None:
    """Too much has changed, nothing is to be kept, or another index is asked for."""
    one = stored(first(), tmp_path, "one")
    two = stored(second(one), tmp_path, "two", **index).artifact("index")
    alone = dataclasses.replace(second(one), continues="")
    other = stored(alone, tmp_path, "alone", **index).artifact("index")
    assert not two.has("base.parquet")
    assert two.manifest.content == other.manifest.content


def test_all_vectors_trained_anew_are_a_new_index(tmp_path: Path) -> None:
    one = stored(first(), tmp_path, "one")
    world = dataclasses.replace(clusters(items=ITEMS, seed=9), continues=one.storage.root)
    two = stored(world, tmp_path, "two")
    assert two.artifact("index").read_json("spec.json")["incremental"] is None
    assert answers(two, 10) == exact(two, 10)


def test_a_recall_that_fell_is_a_new_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stored(first(), tmp_path, "one")
    monkeypatch.setattr(
        "embedmill.pipeline.index.incremental.carry_over.IncrementalIndex.search", _finds_nothing
    )
    two = stored(second(one), tmp_path, "two")
    assert two.artifact("index").read_json("spec.json")["incremental"] is None


def _finds_nothing(_: object, query_BD: Any, k: int, setting: int = 0) -> tuple[Any, Any]:
    shape = (len(query_BD), k)
    return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)


def test_rows_that_moved_are_refused(tmp_path: Path) -> None:
    one = stored(first(), tmp_path, "one")
    world = second(one)
    world.items[20], world.items[21] = world.items[21], world.items[20]
    with pytest.raises(ContractError, match="have another id than in"):
        stored(world, tmp_path, "two")


def test_an_item_in_two_slots_is_refused(tmp_path: Path) -> None:
    one = stored(first(), tmp_path, "one")
    art = stored(second(one), tmp_path, "two").artifact("index")
    spec = art.read_json(SPEC).incremental
    assert spec is not None
    base = Flat().build(first().item_ND, {}, 0)
    stored_index = StoredIndex(art)
    assert open_incremental(stored_index, spec, base).layout.tombstones == 4
    table = art.read_table("base.parquet")
    rows = table["row"].to_pylist()
    rows[5] = rows[6]
    with pytest.raises(ContractError, match="does not have each of 61 items once"):
        open_incremental(StoredIndex(_with(art, rows)), spec, base)
    other, art = Flat().build(np.ones((61, 8), np.float32), {}, 0), _with(art, rows)
    with pytest.raises(ContractError, match="61 slots of the base"):
        open_incremental(StoredIndex(art), spec, other)


def _with(art: Artifact, rows: list[int | None]) -> Artifact:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"row": pa.array(rows, pa.int64())}), art.storage.local_path("base.parquet")
    )
    return reseal(art, "base.parquet")


def test_nothing_to_carry_over_from_without_a_vocabulary_that_continues(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"index\.carry_over: needs vocab\.previous"):
        first().store(tmp_path, index=INDEX)


def test_small_moves_stay_until_they_add_up(tmp_path: Path) -> None:
    world, length = first(), float(np.linalg.norm(first().item_ND, axis=1).mean())
    aside_D = np.linalg.svd(world.user_ND)[2][-1]  # no user tells items apart along it
    keys = {"carry_epsilon": 0.01, "carry_over": 1.0}
    night = stored(world, tmp_path, "n0", **keys)
    for number, (step, in_delta) in enumerate(((0.004, 1), (0.008, 1), (0.012, 0)), 1):
        item_ND = world.item_ND.copy()
        item_ND += step * length * aside_D
        item_ND[50] = item_ND[3]
        now = dataclasses.replace(world, item_ND=item_ND, continues=night.storage.root)
        night = stored(now, tmp_path, f"n{number}", **keys)
        spec = night.artifact("index").read_json(SPEC).incremental
        assert (spec.in_delta if spec else 0) == in_delta
        # In the third night all have moved farther than 0.01 from what the base has.
        assert (spec is None) == (number == 3)


@pytest.mark.parametrize("place", ["local", "objects"])
def test_shards_are_kept(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nights in shards, on a disk and in an object store: the files of the base stay."""
    monkeypatch.setattr(vector_ranges, "FILES", {s: PartFiles(s, rows_per_file=16) for s in FILES})
    monkeypatch.setattr(sharded_build, "ROWS_PER_FILE", 16)
    root = uncopied(place, tmp_path)
    shards = {"shards": 3, "launcher": "inline"}
    one = stored(first(), root, "one", **shards)
    two = stored(second(one), root, "two", **shards)
    before, art = one.artifact("index"), two.artifact("index")
    assert [art.counters[n] for n in ("kept", "changed", "new", "removed")] == [56, 2, 3, 2]
    paths = [shard.path for shard in StoredIndex(before).spec.shards or []]
    assert len(paths) == 3
    assert [art.read(path) for path in paths] == [before.read(path) for path in paths]
    assert answers(two, 10) == exact(two, 10)
    assert open_index(art).ids(np.array([62, 8, 3])) == ["i62", "i8", "i3"]
    assert list(art.verify()) == []
    three = stored(third(two), root, "three", **shards)
    counters = three.artifact("index").counters
    assert [counters[n] for n in ("base_slots", "in_base", "in_delta")] == [60, 55, 6]
    assert answers(three, 10) == exact(three, 10)
    # An index in one file goes on from no shards.
    whole = dataclasses.replace(third(three), continues=three.storage.root)
    alone = stored(whole, root, "four", launcher="inline").artifact("index")
    assert alone.read_json(SPEC).incremental is None
