"""An index opened by URL: what it answers, what it refuses, and how it is checked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from embedmill.pipeline import index
from embedmill.pipeline.errors import (
    ArtifactError,
    CorruptArtifactError,
    EmbedmillError,
    InputError,
    MissingArtifactError,
    StaleArtifactError,
)
from embedmill.pipeline.index import INDEXES, Retriever
from embedmill.pipeline.index.kinds.flat import Flat
from embedmill.pipeline.index.memory_map import map_index
from embedmill.pipeline.index.retrieval import item_filter
from embedmill.pipeline.store import checksums
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.manifest import Manifest
from embedmill.schemas.run import PUBLISHED, Published
from tests.support.runs import clusters, finished

ITEMS = 600


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Item i: cluster i mod 5; colour by i mod 3; one in a hundred is rare."""
    world = dataclasses.replace(
        clusters(items=ITEMS),
        titles=[f"Film {i}" for i in range(ITEMS)],
        categories=[
            [("red", "green", "blue")[i % 3], *(["rare"] if i % 100 == 7 else [])]
            for i in range(ITEMS)
        ],
    )
    return finished(world, tmp_path_factory.mktemp("runs"), index={"kind": "flat"})


@pytest.fixture
def retriever(run: Run) -> Retriever:
    return index.open(run.storage.root)


def exact(run: Run, users: list[int], k: int, barred: npt.NDArray[Any]) -> list[list[str]]:
    export = run.artifact("export")
    user_BD, item_ND = (Vectors.of(export, side).load() for side in ("users", "items"))
    score_BN = np.where(barred, -np.inf, user_BD[users] @ item_ND.T)
    order = np.argsort(-score_BN, axis=1, kind="stable")[:, :k]
    return [
        [f"i{i}" for i in row if np.isfinite(score_BN[b, i])]
        for b, row in enumerate(order.tolist())
    ]


def test_vectors_are_answered_with_ids_rows_and_scores(run: Run, retriever: Retriever) -> None:
    user_BD = Vectors.of(run.artifact("export"), "users").load()
    found = retriever.search(user_BD[:4], 3)
    assert found.ids == exact(run, [0, 1, 2, 3], 3, np.zeros(ITEMS, bool))
    assert [[f"i{row}" for row in rows] for rows in found.rows.tolist()] == found.ids
    assert (np.diff(found.scores) <= 0).all()
    assert retriever.search(user_BD[0], 3).ids == found.ids[:1]
    assert retriever.search(np.empty((0, 8), np.float32)).ids == []
    assert retriever.search([]).ids == []
    named = retriever.search(np.array(["u0", "u1", "u2", "u3"]), 3, of="users")
    assert np.array_equal(named.rows, found.rows)


def test_users_are_asked_by_id_without_what_they_have_seen(run: Run, retriever: Retriever) -> None:
    # All but the last item of its cluster is seen: 595 + u for user u < 5.
    found = retriever.search(["u2", "u0"], 1, of="users", exclude="seen")
    assert found.ids == [["i597"], ["i595"]]
    everything = retriever.search(["u2"], 120, of="users")
    assert {int(i[1:]) % 5 for i in everything.ids[0]} == {2}


def test_items_are_asked_by_id_and_are_not_their_own_answer(retriever: Retriever) -> None:
    found = retriever.search(["i4", "i13"], 119)
    assert set(found.rows[0].tolist()) == set(range(4, ITEMS, 5)) - {4}
    assert set(found.rows[1].tolist()) == set(range(3, ITEMS, 5)) - {13}


def test_lists_of_ids_are_left_out(retriever: Retriever) -> None:
    first = retriever.search(["i4", "i13"], 2)
    again = retriever.search(["i4", "i13"], 1, exclude=[[first.ids[0][0], "nobody"], []])
    assert again.ids == [[first.ids[0][1]], [first.ids[1][0]]]


def test_more_answers_than_the_catalogue(retriever: Retriever) -> None:
    found = retriever.search(["i4"], 10_000)
    assert found.scores.shape == (1, ITEMS)
    assert len(found.ids[0]) == ITEMS - 1
    assert found.rows[0, -1] == -1
    assert np.isneginf(found.scores[0, -1])


def test_large_batches_are_searched_in_parts(
    run: Run, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"u{u}" for u in range(40)]
    whole = retriever.search(users, 7, of="users", exclude="seen", filter={"categories": "red"})
    monkeypatch.setattr("embedmill.pipeline.index.retrieval.retriever._BATCH", 7)
    parts = retriever.search(users, 7, of="users", exclude="seen", filter={"categories": "red"})
    assert np.array_equal(whole.rows, parts.rows)
    assert np.allclose(whole.scores, parts.scores, atol=1e-6)


@pytest.mark.parametrize("way", ["exact", "through", "alone"])
@pytest.mark.parametrize("kind", INDEXES)
def test_a_filter_equals_exact_search_under_a_mask(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, way: str
) -> None:
    """With few items compared one by one, and through any index, asked for more and more."""
    if kind != "flat" and way == "exact":
        return  # the index is not asked
    mine = Run(run.config)
    if kind != "flat":
        world = clusters(items=ITEMS)
        mine = finished(world, tmp_path, index={"kind": kind})
    if way != "exact":
        monkeypatch.setattr(item_filter, "_FEW", 0)
        monkeypatch.setattr(item_filter, "_EXHAUSTIVE", 1)
    retriever = index.open(mine.storage.root)
    for ids in ([i for i in range(ITEMS) if i % 3 == 0], [7, 107, 207, 307], [599]):
        chosen = retriever.item_filter([f"i{i}" for i in ids])
        if way == "alone":
            chosen = dataclasses.replace(chosen, gather=None)
        barred = ~np.isin(np.arange(ITEMS), ids)
        for k in (1, 3, 500):
            found = retriever.search(["u1", "u2", "u3"], k, of="users", filter=chosen)
            want = exact(mine, [1, 2, 3], k, barred)
            assert [len(one) for one in found.ids] == [len(one) for one in want]
            # Codes of a byte rank those of a cluster in another order.
            same = [set(a) == set(b) for a, b in zip(found.ids, want, strict=True)]
            assert all(same) or (kind != "flat" and k < 500)
            assert not barred[found.rows[found.rows >= 0]].any()


def test_categories_and_titles(retriever: Retriever) -> None:
    colour = retriever.search(["i4"], 30, filter={"categories": ["red", "green"]})
    assert {row % 3 for row in colour.rows[0].tolist()} == {0, 1}
    both = retriever.search(["i2"], 30, filter={"categories": "rare", "title": "Film 107"})
    assert both.ids == [["i107"]]


def test_a_filter_and_what_was_seen(retriever: Retriever) -> None:
    found = retriever.search(["u2"], 9, of="users", exclude="seen", filter=["i2", "i597", "i3"])
    assert found.ids == [["i597", "i3"]]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda r: r.search(["i1"], filter={"categories": "gren"}),
         r'no item has categories = "gren". Did you mean "green"'),
        (lambda r: r.search(["i1"], filter={"categories": "rare", "title": "Film 1"}),
         "the filter leaves nothing"),
        (lambda r: r.search(["i1"], filter={"genre": "red"}),
         "no column 'genre' in the item metadata; there are item, title, categories"),
        (lambda r: r.search(["i1"], filter=["x", "y"]), "none of the 2 items of the filter"),
        (lambda r: r.search(["i1"], filter=[]), "none of the 0 items of the filter"),
        (lambda r: r.search(["i6001"]), 'no item "i6001" among 600. Did you mean'),
        (lambda r: r.search(["i1", "x", "y"]), '2 of 3 items are unknown: "x", "y"'),
        (lambda r: r.search(["u41"], of="users"), 'no user "u41" among 40'),
        (lambda r: r.search("i1"), "neither an array of numbers nor a list of ids"),
        (lambda r: r.search([7]), r'Give ids as texts: \["7"\]'),
        (lambda r: r.search([[0.5] * 8]), "neither an array of numbers nor a list of ids"),
        (lambda r: r.search(["i1"], 0), "k is 0"),
        (lambda r: r.search(["i1"], exclude="seen"), "needs ids of users"),
        (lambda r: r.search(["i1"], exclude=[]), "exclude has 0 lists for 1 queries"),
        (lambda r: r.search(np.ones((2, 7), np.float32)), "the index has vectors of 8"),
        (lambda r: r.search(np.zeros((2, 8), bool)), "the index has vectors of 8"),
        (lambda r: r.search(np.full((2, 8), np.nan)), "query 0 holds NaN"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered(
    retriever: Retriever, ask: Callable[[Retriever], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ask(retriever)


def test_a_run_without_metadata(tmp_path: Path) -> None:
    retriever = index.open(finished(clusters(), tmp_path).storage.root)
    with pytest.raises(InputError, match=r"the run has none\. Name its files in \[events.items\]"):
        retriever.search(["i1"], filter={"categories": "red"})


def test_a_bias_of_the_asked_item_says_nothing(tmp_path: Path) -> None:
    bias = np.array([9, 0, 0, 0, 1], np.float32)
    world = dataclasses.replace(
        clusters(users=6, items=5, dim=2),
        user_ND=np.ones((6, 2), np.float32),
        item_ND=np.array([[1, 0], [0.9, 0.1], [0.2, 0], [0, 1], [0, 0.5]], np.float32),
        user_bias=np.zeros(6, np.float32),
        item_bias=bias,
        splits={"train": [(u, 0, 3.0) for u in range(6)]},
        model={"similarity": "dot"},
    )
    retriever = index.open(finished(world, tmp_path, index={"kind": "flat"}).storage.root)
    assert retriever.search(["i0"], 1).ids == [["i1"]]


def test_threads_are_put_back(retriever: Retriever) -> None:
    before = faiss.omp_get_max_threads()
    retriever.search(["i4"], cores=1)
    assert faiss.omp_get_max_threads() == before


# Where it lies


def test_the_index_folder_and_the_published_run(run: Run, retriever: Retriever) -> None:
    want = retriever.search(["i4"]).ids
    assert index.open(run.artifact("index").storage.root).search(["i4"]).ids == want
    root = Storage(run.config.run.root)
    content = run.artifact("index").manifest.content
    pointer = Published(
        run=run.config.run.name,
        content="",
        stages={"index": content},
        published="2024-01-01T00:00:00+00:00",
    )
    root.write("published.json", PUBLISHED.encode(pointer))
    assert index.open(root.root).search(["i4"]).ids == want
    other = pointer.model_copy(update={"stages": {"index": "x"}})
    root.write("published.json", PUBLISHED.encode(other))
    with pytest.raises(StaleArtifactError, match="built anew after it was published"):
        index.open(root.root)
    root.write("published.json", b'{"run": ')
    with pytest.raises(CorruptArtifactError, match="does not say which run"):
        index.open(root.root)
    root.remove("published.json")
    with pytest.raises(MissingArtifactError, match="no run here, and nothing published"):
        index.open(root.root)


def test_an_index_without_its_run_is_asked_with_vectors(
    run: Run, retriever: Retriever, tmp_path: Path
) -> None:
    shutil.copytree(run.artifact("index").storage.root, tmp_path / "copied")
    alone = index.open(str(tmp_path / "copied"))
    user_BD = Vectors.of(run.artifact("export"), "users").load()
    assert alone.search(user_BD, 5).ids == retriever.search(user_BD, 5).ids
    wanted = ["i7", "i11"]
    assert (
        alone.search(user_BD, 5, filter=wanted).ids
        == retriever.search(user_BD, 5, filter=wanted).ids
    )
    with pytest.raises(InputError, match="is open without its run: it can only"):
        alone.search(["i4"])


def test_another_artifact(run: Run) -> None:
    with pytest.raises(ArtifactError, match="is the artifact of stage 'export', not an index"):
        index.open(run.artifact("export").storage.root)


def test_a_newer_contract(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(run.artifact("index").storage.root, folder)
    said = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    content = Manifest.content_hash(said.contract, 99, said.files, said.counters)
    said = said.model_copy(update={"version": 99, "content": content})
    (folder / "manifest.json").write_text(said.model_dump_json())
    with pytest.raises(StaleArtifactError, match="has version 99 of its contract"):
        index.open(str(folder))


# What was checked


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, in which files are noted at once."""
    monkeypatch.setenv("EMBEDMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "_SETTLED", -60)
    return tmp_path / "cache"


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Path:
    shutil.copytree(run.artifact("index").storage.root, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_damage_is_found_before_faiss_reads(notes: Path, copied: Path, harm: str) -> None:
    index.open(str(copied))  # and is noted
    path = copied / "items.faiss"
    data, before = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes({"flipped": data, "cut": data[:-1], "gone": b""}[harm])
    if harm == "gone":
        path.unlink()
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(CorruptArtifactError, match=r"items\.faiss: is (damaged|named)"):
        index.open(str(copied))


def test_a_file_that_was_checked_is_not_hashed_again_unless_asked(
    notes: Path, copied: Path
) -> None:
    index.open(str(copied))
    (note,) = (notes / "checked").iterdir()
    path = copied / "items.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # a coordinate
    path.write_bytes(data)
    found, stamp = path.stat(), json.loads(note.read_bytes())
    # As if the file had looked like this when it was hashed.
    stamp[:5] = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    note.write_text(json.dumps(stamp))
    index.open(str(copied))
    with pytest.raises(CorruptArtifactError, match="is damaged"):
        index.open(str(copied), again=True)


def test_a_file_of_just_now_is_not_noted(
    copied: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "_SETTLED", 3600)
    index.open(str(copied))
    assert not (notes / "checked").exists()


def test_a_remote_index_is_fetched_once(notes: Path) -> None:
    run = finished(clusters(), "memory://retriever-remote", index={"kind": "flat"})
    want = index.open(run.storage.root).search(["i4"]).ids
    (fetched,) = (notes / "fetched").iterdir()
    assert hashlib.sha256(fetched.read_bytes()).hexdigest() == fetched.name
    run.artifact("index").storage.remove("items.faiss")
    assert index.open(run.storage.root).search(["i4"]).ids == want
    fetched.write_bytes(b"other")
    with pytest.raises(CorruptArtifactError, match="named in the manifest but missing"):
        index.open(run.storage.root)


def test_a_cache_that_cannot_be_written(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EMBEDMILL_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(checksums, "_SETTLED", -60)
    assert index.open(str(copied)).index.items == ITEMS


@pytest.mark.parametrize("kind", INDEXES)
def test_mapped_and_loaded_answer_alike(tmp_path: Path, kind: str) -> None:
    run = finished(clusters(items=ITEMS), tmp_path, index={"kind": kind})
    artifact, query_BD = run.artifact("index"), np.eye(8, dtype=np.float32)
    spec = artifact.read_json("spec.json")
    mapped = index.open(run.storage.root).index.index.search(query_BD, 10)
    loaded = (
        INDEXES[kind].load(artifact.read("items.faiss"), spec["parameters"]).search(query_BD, 10)
    )
    assert all(np.array_equal(a, b) for a, b in zip(mapped, loaded, strict=True))


@pytest.mark.parametrize("length", [1 << 20, 1 << 33, (1 << 64) - 1])
def test_a_length_beyond_the_file_is_not_believed(tmp_path: Path, length: int) -> None:
    """Even in a file that has its sha256: nothing is allocated or read beyond its end."""
    engine = faiss.IndexFlatIP(8)
    engine.add(np.ones((100, 8), np.float32))
    data = bytearray(faiss.serialize_index(engine).tobytes())
    place = data.find(struct.pack("<Q", 800))
    assert place > 0
    data[place : place + 8] = struct.pack("<Q", length)
    (tmp_path / "items.faiss").write_bytes(data)
    with pytest.raises(CorruptArtifactError, match="is no index that FAISS"):
        map_index(tmp_path / "items.faiss", Flat(), {})


@pytest.mark.parametrize("data", [b"", b"IxF", b"Ixx9" + bytes(64), b"\xff" * 200])
def test_what_is_no_index(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "items.faiss").write_bytes(data)
    with pytest.raises(EmbedmillError, match="is no index that FAISS"):
        map_index(tmp_path / "items.faiss", Flat(), {})
