"""An index in shards: the same answers as in one piece, whoever builds it; every id once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.jobs import export as export_job
from embedmill.pipeline import index as index_room
from embedmill.pipeline.errors import (
    ConfigError,
    ContractError,
    CorruptArtifactError,
    IndexTargetError,
    InputError,
    MachineError,
)
from embedmill.pipeline.export import vector_ranges
from embedmill.pipeline.index import open_index
from embedmill.pipeline.index.kinds import kind_of
from embedmill.pipeline.index.measure import ground_truth
from embedmill.pipeline.index.sharded import sharded_build
from embedmill.pipeline.index.sharded.filewise_truth import filewise_truths
from embedmill.pipeline.index.sharded.kmeans import VectorTransform, train_centroids_by_tasks
from embedmill.pipeline.index.sharded.shard_groups import group_files
from embedmill.pipeline.index.sharded.shard_tasks import (
    check_positions,
    inverted_kind,
    train_empty_index,
)
from embedmill.pipeline.index.sharded.sharded_index import ShardedIndex
from embedmill.pipeline.index.sharded.stored_sample import sample_items
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.task_pool import LAUNCHERS, TaskPool, TaskRequest, inline, processes
from embedmill.pipeline.views.vectors import LiveFile, LiveVectors, Vectors, to_matrix
from embedmill.schemas.files import PartFiles
from tests.support.artifacts import reseal
from tests.support.runs import StoredRun, clusters
from tests.support.worlds import config

Floats = npt.NDArray[np.float32]
ITEMS, PART = 1300, 128


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of few rows: eleven parts."""
    files = {side: PartFiles(side, rows_per_file=PART) for side in ("users", "items")}
    monkeypatch.setattr(vector_ranges, "FILES", files)
    monkeypatch.setattr(sharded_build, "ROWS_PER_FILE", PART)


@pytest.fixture(scope="module")
def workers() -> Iterator[TaskPool]:
    with processes(TaskRequest("index", 2)) as pool:
        yield pool


def world(**changes: Any) -> StoredRun:
    made = clusters(users=60, items=ITEMS, clusters=5, dim=8)
    return dataclasses.replace(made, **{"model": {"similarity": "dot"}, **changes})


def exported(root: Path, made: StoredRun | None = None, **index: Any) -> Run:
    run = (made or world()).store(root, index={"shards": 4, "launcher": "inline", **index})
    export_job.build(run, run.writer("export"), Quiet())
    return run


def built(run: Run, pool: TaskPool | None = None) -> Artifact:
    def given(request: TaskRequest) -> AbstractContextManager[TaskPool]:
        return contextlib.nullcontext(pool) if pool else inline(request)

    index_room.build(run, run.writer("index"), Quiet(), {**LAUNCHERS, "inline": given})
    return run.artifact("index")


def files_of(run: Run) -> LiveVectors:
    return LiveVectors.of(Vectors.of(run.artifact("export"), "items"))


def test_exact_search_in_shards_is_exact_search(tmp_path: Path) -> None:
    retired = frozenset(f"i{i}" for i in (0, 5, *range(PART, 2 * PART), 700))
    made = world(retired=retired)
    whole, cut = (
        built(exported(tmp_path / name, made, kind="flat", shards=shards))
        for name, shards in (("whole", 1), ("cut", 4))
    )
    assert whole.has("items.faiss")
    spec = cut.read_json("spec.json")
    assert [one["path"] for one in spec["shards"]] == [
        f"items-flat-0-0000{i}.faiss" for i in range(4)
    ]
    assert sum(one["items"] for one in spec["shards"]) == ITEMS - len(retired)
    assert cut.counters["indexed"] + cut.counters["not_live"] == cut.counters["items_in"] == ITEMS
    for k in (1, 10, ITEMS + 5):
        for one, other in zip(
            open_index(whole).search(made.user_ND, k),
            open_index(cut).search(made.user_ND, k),
            strict=True,
        ):
            assert np.array_equal(one, other)
    row_N = open_index(cut).row_N
    assert open_index(cut).ids(row_N) == [f"i{row}" for row in row_N.tolist()]
    assert not cut.storage.exists("scratch/centroids-0.npy")


@pytest.mark.parametrize("kind", ["fastscan", "ivfsq8", "opqivfpq", "hnsw"])
def test_two_workers_write_the_bytes_of_one(tmp_path: Path, kind: str, workers: TaskPool) -> None:
    one, two = (
        built(exported(tmp_path / name, kind=kind), pool)
        for name, pool in (("one", None), ("two", workers))
    )
    assert one.manifest.content == two.manifest.content
    assert len(one.read_json("spec.json")["shards"]) == 4


@pytest.mark.parametrize("kind", ["ivfflat", "ivfsq8", "ivfpq"])
def test_lists_in_shards_find_what_whole_lists_do(tmp_path: Path, kind: str) -> None:
    run = exported(tmp_path, kind=kind)
    index = open_index(built(run)).index
    assert isinstance(index, ShardedIndex)
    files = files_of(run)
    with inline(TaskRequest("index")) as pool:
        sample = sample_items(files, pool, 1 << 16, run.config.run.seed, run.storage.at("again"))
        index_kind = inverted_kind(kind)
        assert index_kind is not None
        engine = train_empty_index(index_kind, index.parameters, run.config.run.seed, sample, pool)
    ivf = faiss.extract_index_ivf(engine)
    by_product = ivf.quantizer
    by_distance = faiss.IndexFlatL2(8)
    by_distance.add(by_product.reconstruct_n(0, by_product.ntotal))
    ivf.quantizer = by_distance
    engine.add(world().item_ND)
    ivf.quantizer = by_product
    whole = index_kind.open(engine, index.parameters)
    for setting in (3, 8, 20):  # with fewer a small shard takes three lists anyway
        for one, other in zip(
            whole.search(world().user_ND, 10, setting),
            index.search(world().user_ND, 10, setting),
            strict=True,
        ):
            assert np.array_equal(one, other)


def test_the_target_is_met_over_all_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedmill.pipeline.index.selection.choose._EXACT_IS_FAST_US", 0.0)
    draw_ = np.random.default_rng(5)
    made = world(item_ND=draw_.standard_normal((ITEMS, 8)).astype(np.float32))
    run = exported(tmp_path, made, kind="auto", recall_at_10=0.6)
    art = built(run)
    spec, told = art.read_json("spec.json"), art.read_json("recall.json")
    assert told["target"]["verified"]["low"] >= 0.6
    assert spec["parameters"] == open_index(art).index.parameters
    assert abs(spec["estimate"] - spec["bytes"]) <= 0.1 * spec["bytes"] + 4 * 4096
    # Files of other candidates are gone; the recall is that of the vectors themselves.
    on_disk = {path.name for path in (tmp_path / "tiny" / "index").glob("*.faiss")}
    assert on_disk == {one["path"] for one in spec["shards"]}
    index = open_index(art)
    with pytest.raises(IndexTargetError, match="not enough for 1,300 items"):
        built(exported(tmp_path / "little", made, kind="auto", max_bytes=100))
    assert index.items == ITEMS


def test_truths_by_part_are_those_of_all_items(tmp_path: Path) -> None:
    run, user_ND = exported(tmp_path), world().user_ND
    with inline(TaskRequest("index")) as pool:
        found = filewise_truths(files_of(run), pool, [user_ND[:7], user_ND[7:]], 10)
    whole = ground_truth(user_ND, world().item_ND)
    assert np.allclose(np.concatenate([one.kth_score_B for one in found]), whole.kth_score_B)
    answers = np.random.default_rng(0).integers(-1, ITEMS, (60, 10))
    answers[:, 0] = found_rows = np.concatenate([one.position_BM[:, 0] for one in found])
    assert (found_rows >= 0).all()
    right = np.concatenate([found[0].correct(answers[:7]), found[1].correct(answers[7:])])
    assert np.array_equal(right, whole.correct(answers))
    assert right[:, 0].all()


def test_items_that_are_all_alike_are_all_right(tmp_path: Path) -> None:
    made = world(item_ND=np.ones((ITEMS, 8), np.float32))
    art = built(exported(tmp_path, made, kind="ivfflat"))
    assert art.read_json("recall.json")["recall@10"] == 1.0


def test_k_means_finds_planted_centres(tmp_path: Path) -> None:
    files = files_of(exported(tmp_path))
    with inline(TaskRequest("index")) as pool:
        sample = sample_items(files, pool, ITEMS, 1, Run(config(tmp_path, "x")).storage)
        assert sample.sampled == ITEMS
        assert np.array_equal(sample.extreme_RD.max(axis=0), world().item_ND.max(axis=0))
        assert np.array_equal(sample.extreme_RD.min(axis=0), world().item_ND.min(axis=0))
        centre_LD = train_centroids_by_tasks(pool, sample, 40, VectorTransform())
    item_ND = world().item_ND
    near_N = ((item_ND[:, None] - centre_LD[None]) ** 2).sum(axis=2)
    # Lists do not mix the five clusters, and every list has an item.
    owner = near_N.argmin(axis=1)
    assert len(np.unique(owner)) == 40
    assert all(len(set((np.flatnonzero(owner == one) % 5).tolist())) == 1 for one in range(40))


@pytest.mark.parametrize("ids", [[0, 1, 1, 3], [0, 1, 2, 4], [0, 1, 2]])
def test_every_position_once_or_not_at_all(ids: list[int]) -> None:
    draw_ = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    quantizer = faiss.IndexFlatIP(4)
    engine = faiss.IndexIVFFlat(quantizer, 4, 1, faiss.METRIC_INNER_PRODUCT)
    engine.train(draw_)
    engine.add_with_ids(draw_[: len(ids)], np.array(ids))
    with pytest.raises(ContractError, match="positions"):
        check_positions(engine, 4, "here")
    engine.reset()
    engine.add_with_ids(draw_, np.array([2, 0, 3, 1]))
    assert check_positions(engine, 4, "here") == 4


def test_a_shard_with_nothing_near_is_not_searched_through(tmp_path: Path) -> None:
    """Items sorted by cluster: most shards have nothing in the lists near a query."""
    made = world()
    item_ND = made.item_ND[np.argsort(np.arange(ITEMS) % 5, kind="stable")]
    art = built(exported(tmp_path, dataclasses.replace(made, item_ND=item_ND), kind="ivfflat"))
    index = open_index(art).index
    assert isinstance(index, ShardedIndex)
    glanced = [shard.search_partial(made.user_ND, 10, 1)[1] for shard in index.shards]
    assert sum((rows < 0).all() for rows in np.concatenate(glanced)) > 0
    assert (index.search(made.user_ND, 10, 1)[1] >= 0).all()
    everything = index.search(made.user_ND, ITEMS, 1)[1]
    assert (np.sort(everything, axis=1) == np.arange(ITEMS)).all()


def test_parts_are_cut_evenly() -> None:
    every = [LiveFile(n, n * 10, n * 10, size) for n, size in enumerate((10, 1, 9, 10, 10, 2))]
    assert [[p.number for p in group] for group in group_files(every, 3)] == [
        [0, 1, 2],
        [3],
        [4, 5],
    ]
    assert [len(group) for group in group_files(every, 100)] == [1] * 6
    assert [len(group) for group in group_files(every, 1)] == [6]


def test_fewer_items_than_lists(tmp_path: Path) -> None:
    art = built(exported(tmp_path, kind="ivfflat", ivf={"lists": 100_000}))
    assert art.read_json("spec.json")["parameters"]["lists"] == ITEMS // 39


def test_vectors_that_are_not_finite(tmp_path: Path) -> None:
    run = exported(tmp_path, kind="ivfflat")
    for row in (200, 900):
        path = tmp_path / "tiny" / "export" / f"items/part-{row // PART:05d}.parquet"
        table = pq.read_table(path)
        vector_ND = to_matrix(table["vector"], 8)
        vector_ND[row % PART, 3] = np.nan
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(vector_ND.reshape(-1)), type=table.schema.field("vector").type
        )
        place = table.schema.get_field_index("vector")
        pq.write_table(table.set_column(place, table.schema.field(place), column), path)
        reseal(run.artifact("export"), f"items/{path.name}")
    with pytest.raises(InputError, match=r"2 of 1,300 vectors \(items\) .* first in row 200"):
        built(run)
    assert run.find("index") is None


def test_no_live_items(tmp_path: Path) -> None:
    retired = frozenset(f"i{i}" for i in range(ITEMS))
    with pytest.raises(InputError, match="no items to index"):
        built(exported(tmp_path, world(retired=retired), kind="flat"))


def _die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def _fail(number: int) -> int:
    if number == 3:
        raise InputError("bad", where="part 3")
    return number


def test_a_worker_that_is_killed_ends_the_build() -> None:
    with (
        pytest.raises(MachineError, match=r"ended from outside.*Lower index\.workers"),
        processes(TaskRequest("index", 1, todo="index.shard_bytes")) as pool,
    ):
        list(pool.map(_die, range(5)))


def test_an_error_of_a_task_is_an_error_here(workers: TaskPool) -> None:
    with pytest.raises(InputError, match="part 3: bad"):
        list(workers.map(_fail, range(9)))
    assert list(workers.map(_fail, [5, 4, 6])) == [5, 4, 6]


def test_a_disk_that_fills(tmp_path: Path) -> None:
    run = exported(tmp_path, kind="flat")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    try:
        with pytest.raises(MachineError):
            built(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.find("index") is None
    built(run)


def test_a_shard_that_was_changed_is_not_read(tmp_path: Path) -> None:
    art = built(exported(tmp_path, kind="ivfflat"))
    path = tmp_path / "tiny" / "index" / "items-ivfflat-0-00002.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError):
        open_index(art)


def test_memory_is_of_one_process() -> None:
    with pytest.raises(ConfigError, match=r"index\.launcher: memory:// lives in one process"):
        config("memory://x", "log.tsv", index={"shards": 2})


@pytest.mark.exhaustive
@pytest.mark.ray
def test_ray_tasks_write_the_same_bytes_and_begin_again(tmp_path: Path) -> None:
    from embedmill.jobs.ray_tasks import ray_tasks

    mark = tmp_path / "died"

    def fail(number: int) -> int:
        if number == 3:
            raise InputError("bad", where="part 3")
        return number

    def die_once(number: int) -> int:
        if number == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    here = built(exported(tmp_path / "here", kind="fastscan"))
    with ray_tasks(TaskRequest("index", 2)) as pool:
        there = built(exported(tmp_path / "there", kind="fastscan"), pool)
        assert there.manifest.content == here.manifest.content
        with pytest.raises(InputError, match="part 3: bad"):
            list(pool.map(fail, range(5)))
        assert list(pool.map(die_once, range(5))) == list(range(5))
    assert mark.exists()


def test_kinds_with_lists() -> None:
    assert inverted_kind("flat") is None
    assert inverted_kind("fastscan") is kind_of("fastscan")
