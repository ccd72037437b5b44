"""The index stage on a planted run: what it writes, how it measures, what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.jobs import export as export_job
from embedmill.jobs import index as index_job
from embedmill.pipeline.errors import (
    CorruptArtifactError,
    IndexTargetError,
    StaleArtifactError,
)
from embedmill.pipeline.index import INDEXES, ExcludedRows, open_index
from embedmill.pipeline.index.kinds.flat import Flat
from embedmill.pipeline.index.measure import ground_truth, recall
from embedmill.pipeline.index.query_users import choose_query_users
from embedmill.pipeline.index.selection import choose as choose_module
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.manifest import Manifest
from tests.support.runs import StoredRun, clusters


def indexed(run: Run) -> Artifact:
    export_job.build(run, run.writer("export"), Quiet())
    index_job.build(run, run.writer("index"), Quiet())
    return run.artifact("index")


def of(world: StoredRun, root: Path, **sections: Any) -> Artifact:
    return indexed(world.store(root, **sections))


def stored_target(art: Artifact) -> Any:
    stored = art.read_json("spec.json")["target"]
    assert (stored is None) == (art.read_json("recall.json")["target"] is None)
    return stored


def test_the_target_is_stored_with_what_was_found(tmp_path: Path) -> None:
    asked = {"recall_at_10": 0.9, "max_bytes": "1MB", "queries": 15}
    art = of(clusters(), tmp_path, index=asked)
    assert stored_target(art) == {
        "recall_at_10": 0.9, "max_bytes": 10**6, "max_latency_ms": None,
    }  # fmt: skip
    stored = art.read_json("recall.json")
    assert (
        art.counters["queries"]
        == stored["queries"]
        == stored["target"]["verified"]["queries"]
        == 15
    )
    assert stored["target"]["tuning_queries"] == 15
    assert stored["target"]["verified"]["low"] >= 0.9
    assert stored["target"]["verified"]["mean"] == pytest.approx(stored["recall@10"])
    assert stored["target"]["frontier"]
    spec, latency = art.read_json("spec.json"), art.read_json("latency.json")
    (made,) = [one for one in latency["candidates"] if one["kind"] == spec["kind"]]
    assert (made["verdict"], made["bytes"]) == ("built", spec["bytes"])
    assert abs(spec["estimate"] - spec["bytes"]) <= 0.1 * spec["bytes"] + 4096
    # Users of tuning and of verification are others: 40 there are.
    again = of(clusters(), tmp_path / "all", index={**asked, "queries": 1000})
    assert (
        again.counters["queries"]
        == again.read_json("recall.json")["target"]["tuning_queries"]
        == 20
    )


def test_a_reader_searches_at_the_verified_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose_module, "_EXACT_IS_FAST_US", 0.0)
    run = clusters(items=400).store(tmp_path, index={"kind": "ivfflat", "recall_at_10": 0.5})
    art = indexed(run)
    spec, stored = art.read_json("spec.json"), art.read_json("recall.json")
    assert stored["setting"] == spec["parameters"]["probes"] < spec["parameters"]["lists"]
    reader = open_index(art)
    query_BD = Vectors.of(run.artifact("export"), "users").load()
    item_ND = Vectors.of(run.artifact("export"), "items").load()
    truth = ground_truth(query_BD, item_ND)
    assert reader.index.parameters == spec["parameters"]
    assert recall(reader.index, truth) == pytest.approx(stored["recall@10"], abs=0.1)
    plain = reader.search(query_BD, 10)[1]
    setting = reader.index.search(query_BD, 10, spec["parameters"]["probes"])[1]
    assert np.array_equal(plain, setting)


def test_a_missed_target_writes_nothing(tmp_path: Path) -> None:
    run = clusters().store(tmp_path, index={"max_bytes": 10})
    with pytest.raises(IndexTargetError, match=r"index\.max_bytes: 10 bytes are not enough"):
        indexed(run)
    assert run.find("index") is None


@pytest.mark.parametrize("kind", INDEXES)
def test_what_is_written(tmp_path: Path, kind: str) -> None:
    art = of(clusters(), tmp_path, index={"kind": kind, "queries": 25})
    assert art.counters == {"items_in": 30, "indexed": 30, "not_live": 0, "queries": 25}
    assert stored_target(art) is None
    found = art.read_json("recall.json")
    assert found["recall@10"] >= (1.0 if kind in ("flat", "hnsw", "ivfflat") else 0.98)
    assert found["queries_from"] == "test"
    assert art.read_table("ids.parquet")["id"].to_pylist() == [f"i{i}" for i in range(30)]
    spec = art.read_json("spec.json")
    assert spec["kind"] == kind
    assert spec["bytes"] == len(art.read("items.faiss"))
    latency = art.read_json("latency.json")
    assert [point["chosen"] for point in latency["curve"]].count(True) == 1
    assert all(point["ms_per_query"] > 0 for point in (*latency["curve"], latency["exact"]))
    assert art.manifest.measured["ms_per_query"] > 0


@pytest.mark.parametrize("kind", INDEXES)
def test_the_same_run_has_the_same_content(tmp_path: Path, kind: str) -> None:
    first, second = (of(clusters(), tmp_path / name, index={"kind": kind}) for name in "ab")
    assert first.manifest.content == second.manifest.content


@pytest.mark.parametrize("kind", INDEXES)
def test_one_item(tmp_path: Path, kind: str) -> None:
    world = clusters(users=6, items=1)
    world = dataclasses.replace(world, splits={"train": [(u, 0, 1.0) for u in range(6)]})
    art = of(world, tmp_path, index={"kind": kind})
    assert art.counters["indexed"] == 1
    assert open_index(art).search(np.ones((1, 8), np.float32), 10)[1][0].tolist() == [0] + [-1] * 9


@pytest.mark.parametrize("kind", INDEXES)
def test_more_coordinates_than_items(tmp_path: Path, kind: str) -> None:
    world = clusters(users=10, items=12, dim=48)
    art = of(world, tmp_path, index={"kind": kind}, train={"dim": 48})
    assert art.read_json("recall.json")["recall@10"] == 1.0


def test_a_flipped_byte_never_reaches_faiss(tmp_path: Path) -> None:
    art = of(clusters(), tmp_path)
    path = art.storage.local_path("items.faiss")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError, match=r"items\.faiss"):
        open_index(art)


def test_a_file_cut_short_never_reaches_faiss(tmp_path: Path) -> None:
    art = of(clusters(), tmp_path)
    path = art.storage.local_path("items.faiss")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptArtifactError, match=r"items\.faiss"):
        open_index(art)


def test_an_index_of_a_newer_program_is_named(tmp_path: Path) -> None:
    run = clusters().store(tmp_path)
    path = indexed(run).storage.local_path("manifest.json")
    one = Manifest.model_validate_json(path.read_bytes())
    ours, newer = one.version, one.version + 1
    content = Manifest.content_hash(one.contract, newer, one.files, one.counters)
    newer_one = one.model_copy(update={"version": newer, "content": content})
    path.write_text(newer_one.model_dump_json())
    said = rf"'index' has version {ours + 1} of its contract, this program reads {ours}"
    with pytest.raises(StaleArtifactError, match=said):
        open_index(run.artifact("index"))


def test_rows_map_back_to_ids(tmp_path: Path) -> None:
    reader = open_index(of(clusters(), tmp_path))
    assert reader.ids(np.array([3, 0, 29])) == ["i3", "i0", "i29"]
    assert reader.items == 30


@pytest.mark.parametrize("kind", INDEXES)
def test_unseen_equals_exact_search_under_a_mask(tmp_path: Path, kind: str) -> None:
    run = clusters(items=60).store(tmp_path, index={"kind": kind})
    reader = open_index(indexed(run))
    export = run.artifact("export")
    item_ND, user_BD = (Vectors.of(export, side).load() for side in ("items", "users"))
    draw = np.random.default_rng(0)
    masks = draw.random((len(user_BD), 60)) < draw.random((len(user_BD), 1))
    seen = ExcludedRows.of(*np.nonzero(masks), len(user_BD))
    for k in (1, 10, 100):
        scores, rows = reader.search_unseen(user_BD, k, seen)
        assert scores.shape == rows.shape == (len(user_BD), k)
        for b, mask in enumerate(masks):
            answered = rows[b][rows[b] >= 0]
            assert not mask[answered].any()
            assert len(answered) == min(k, 60 - mask.sum())
            assert np.isneginf(scores[b][len(answered) :]).all()
            best = np.where(mask, -np.inf, item_ND @ user_BD[b])
            # Codes may take one for another that is as near.
            exact = np.sort(best)[::-1][: len(answered)]
            assert np.abs(np.sort(best[answered])[::-1] - exact).max(initial=0) <= 0.02


def test_users_are_chosen_by_a_hash_among_those_held_out(tmp_path: Path) -> None:
    world = clusters(users=40)
    # User 3 has no train events, user 4 is not held out.
    splits = {
        "train": [p for p in world.splits["train"] if p[0] != 3],
        "valid": [],
        "test": [p for p in world.splits["test"] if p[0] != 4],
    }
    run = dataclasses.replace(world, splits=splits).store(tmp_path)
    shards = Shards(run.artifact("shards"))
    split, everyone = choose_query_users(shards, 1000, seed=1)
    assert split == "test"
    assert everyone.tolist() == [u for u in range(40) if u not in (3, 4)]
    few = [choose_query_users(shards, 10, seed)[1].tolist() for seed in (1, 1, 2)]
    assert few[0] == few[1] != few[2]
    assert len(few[0]) == 10
    assert set(few[0]) <= set(everyone.tolist())


@pytest.mark.parametrize("held", ["valid", "train"])
def test_without_test_events_others_are_the_queries(tmp_path: Path, held: str) -> None:
    world = clusters()
    splits = {"train": world.splits["train"], "valid": [], "test": []}
    splits[held] = splits[held] or world.splits["test"]
    run = dataclasses.replace(world, splits=splits).store(tmp_path)
    assert indexed(run).read_json("recall.json")["queries_from"] == held


def test_any_of_equal_items_counts_as_found() -> None:
    item_ND = np.repeat(np.eye(2, dtype=np.float32), 30, axis=0)
    truth = ground_truth(np.eye(2, dtype=np.float32), item_ND)
    index = Flat().build(item_ND, {}, 0)
    # Answers of another index: as good, with other rows.
    index.search = lambda q, k, s=0: (  # type: ignore[method-assign]
        np.ones((2, k), np.float32),
        np.stack([np.arange(20, 20 + k), np.arange(45, 45 + k)]),
    )
    assert recall(index, truth) == 1.0


def test_recall_counts_what_is_missing() -> None:
    item_ND = np.arange(40, dtype=np.float32)[:, None]
    truth = ground_truth(np.ones((1, 1), np.float32), item_ND)
    index = Flat().build(item_ND, {}, 0)
    rows = np.array([[39, 38, 37, 36, 35, 34, 33, 0, 1, -1]])
    index.search = lambda q, k, s=0: (rows.astype(np.float32), rows)  # type: ignore[method-assign]
    assert recall(index, truth) == pytest.approx(0.7)


@pytest.mark.parametrize("kind", INDEXES)
def test_only_live_items_are_indexed(tmp_path: Path, kind: str) -> None:
    world = clusters(items=60)
    retired = frozenset({"i0", "i7", "i59", None})
    world = dataclasses.replace(
        world,
        items=[*world.items, None],
        item_ND=np.concatenate((world.item_ND, world.item_ND[:1])),
        retired=retired,
    )
    art = of(world, tmp_path, index={"kind": kind})
    assert art.counters == {"items_in": 61, "indexed": 57, "not_live": 4, "queries": 40}
    reader = open_index(art)
    assert reader.items == 57
    # Item 7 asked for: the nearest others of its cluster, by their rows in the vocabulary.
    _, found = reader.search(world.item_ND[7:8], 11)
    assert set(found[0].tolist()) == {row for row in range(2, 60, 5) if row != 7}
    _, found = reader.search(world.item_ND[7:8], 100)
    assert sorted(found[0][found[0] >= 0]) == [r for r in range(60) if r not in (0, 7, 59)]
    assert reader.ids(np.array([58, 1, 8])) == ["i58", "i1", "i8"]
