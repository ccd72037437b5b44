"""Every format, read back by the tool that it is for; an entry of FORMATS inherits these tests."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.pipeline.errors import ConfigError, InputError, MachineError
from embedmill.pipeline.formats import (
    FORMATS,
    SIDES,
    ExportOptions,
    find_format,
    formats,
    line_writer,
    vector_table,
    write,
)
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.views.vectors import Vectors
from tests.support.commands import Cli
from tests.support.format_loaders import READERS, Read, check_payload
from tests.support.postgres import Postgres, postgres
from tests.support.runs import StoredRun, clusters, finished

AWKWARD = [
    "tab\there", "line\nbreak", "return\rhere", 'q"uote', "it's", "a b", " spaced ", "новый",
    "100%", "%20", "back\\slash", "\\N", "\\.", "[1,2]", "{x}", "NULL", "0", "00", "​",
    "\u2028", "\u00a0", "😀", "a\\tb", "comma,d", ";", "#", "x" * 3000, "</s>", "\x7f", "\x1f",
]  # fmt: skip
# Those whose package is there; `make test-stores` installs the others.
NAMES = [n for n, one in FORMATS.items() if not one.package or find_spec(one.package)]
CASES = [(name, dtype) for name in NAMES for dtype in FORMATS[name].dtypes]


def world() -> StoredRun:
    users = [*AWKWARD, *(f"u{u}" for u in range(10))]
    items = [*AWKWARD, *(f"i{i}" for i in range(20))]
    return dataclasses.replace(
        clusters(users=len(users), items=len(items)),
        users=users,
        items=items,
        retired=frozenset({"u3", "i7", "comma,d"}),
        titles=[f"Title\t{i}\nof \\ it" for i in range(len(items))],
        categories=[["one", "two\ttabs"] if i % 2 else [] for i in range(len(items))],
        model={"similarity": "dot"},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(world(), tmp_path_factory.mktemp("runs"), index={"kind": "flat"})


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of few rows, so that there are several."""
    monkeypatch.setattr("embedmill.pipeline.formats.word2vec.NUMBERS", 64)
    monkeypatch.setattr("embedmill.pipeline.formats.projector.NUMBERS", 64)
    monkeypatch.setattr("embedmill.pipeline.formats.postgres.NUMBERS", 64)
    monkeypatch.setattr("embedmill.pipeline.formats.qdrant._POINTS", 7)
    monkeypatch.setattr("embedmill.pipeline.formats.bulk_imports.NUMBERS", 64)
    monkeypatch.setattr("embedmill.pipeline.formats.documents.NUMBERS", 64)
    monkeypatch.setattr("embedmill.pipeline.formats.databases._PIECE", 64)


def written(run: Run, out: Path, name: str, dtype: str = "float32") -> dict[str, Any]:
    return write(run, ExportOptions(name, dtype), str(out), Quiet())


@pytest.fixture
def read(server: Postgres) -> Callable[[str, Path, str], Read]:
    def of_postgres(folder: Path, side: str) -> Read:
        with server.connect() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {side}")
        assert server.psql(folder / f"{side}.sql") == ""
        with server.connect() as connection:
            found = connection.execute(
                f"SELECT id, embedding::text FROM {side} ORDER BY row"
            ).fetchall()
            if side == "items":
                payload = "SELECT id, title, categories FROM items ORDER BY row"
                check_payload(connection.execute(payload).fetchall())
            vectors = np.array([json.loads(text) for _, text in found], np.float32)
            nearest = f"SELECT row FROM {side} ORDER BY embedding <#> %s LIMIT 1"
            (best,) = connection.execute(nearest, [found[3][1]]).fetchall()
            scores = vectors @ vectors[3]
            rows = [r[0] for r in connection.execute(f"SELECT row FROM {side} ORDER BY row")]
            assert scores[rows.index(best[0])] == pytest.approx(scores.max(), rel=1e-3)
        return [raw for raw, _ in found], vectors

    def of(name: str, folder: Path, side: str) -> Read:
        reader = of_postgres if name == "pgvector" else READERS[name]
        return reader(folder, side)

    return of


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_its_own_loader_gives_the_same_vectors_and_ids(
    run: Run, tmp_path: Path, read: Callable[[str, Path, str], Read], name: str, dtype: str
) -> None:
    manifest = written(run, tmp_path / "out", name, dtype)
    planted = world()
    for side, raw, vector_ND in (
        ("users", planted.users, planted.user_ND),
        ("items", planted.items, planted.item_ND),
    ):
        live = [i for i, one in enumerate(raw) if one not in planted.retired]
        ids, found_ND = read(name, tmp_path / "out", side)
        assert ids == [raw[i] for i in live]
        want_ND = vector_ND[live]
        if dtype == "int8":
            want_ND = np.rint(want_ND / manifest[side]["scale"])
            assert np.abs(found_ND).max() == 127
        elif dtype == "float16":
            want_ND = want_ND.astype(np.float16)
        assert np.array_equal(np.asarray(found_ND, np.float32), want_ND.astype(np.float32))
        assert manifest[side]["count"] == len(live)
        assert manifest[side]["left_out"] == len(raw) - len(live)


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_names_every_file(run: Run, tmp_path: Path, name: str) -> None:
    manifest = written(run, tmp_path / "out", name)
    stored = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert stored == manifest
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert {f["path"] for f in stored["files"]} == set(found)
    for file in stored["files"]:
        data = found[file["path"]]
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert (stored["format"], stored["dtype"], stored["dim"]) == (name, "float32", 8)
    assert stored["recall@10"] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "name",
    # Those of several files are in tests/formats/test_numbered_files.py.
    [n for n in NAMES if n not in ("lance", "qdrant", "faiss", "chroma") and not FORMATS[n].files],
)
def test_no_more_than_a_block_is_in_memory(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A block is written before the next one is asked for."""
    alive: list[Any] = []
    blocks = vector_table.VectorTable.blocks

    def watched(table: vector_table.VectorTable) -> Iterator[vector_table.NumberBlock]:
        import weakref

        for block in (piece for whole in blocks(table) for piece in whole.pieces(16)):
            copy = dataclasses.replace(block, vector_ND=block.vector_ND.copy())
            alive.append(weakref.ref(copy.vector_ND))
            yield copy
            del copy, block
            assert sum(one() is not None for one in alive) <= 2

    monkeypatch.setattr(vector_table.VectorTable, "blocks", watched)
    written(run, tmp_path / "out", name)
    assert len(alive) > 20


def test_recall_is_that_of_a_hand_made_catalogue(tmp_path: Path) -> None:
    """The tenth and the eleventh best score 50.8 and 50.2, and both 50 in int8."""
    item_ND = np.zeros((20, 2), np.float32)
    item_ND[:, 0] = [*[127] * 9, 50.4, 50.2, *[0] * 9]
    item_ND[9, 1] = 0.4
    world = dataclasses.replace(
        clusters(users=6, items=20, dim=2),
        user_ND=np.ones((6, 2), np.float32),
        item_ND=item_ND,
        splits={"train": [(u, 0, 3.0) for u in range(6)]},
        model={"similarity": "dot"},
    )
    run = finished(world, tmp_path / "a", index={"kind": "flat"})
    assert written(run, tmp_path / "1", "npy", "int8")["recall@10"] == 1.0  # the lower row
    swapped = dataclasses.replace(world, item_ND=item_ND[[*range(9), 10, 9, *range(11, 20)]])
    run = finished(swapped, tmp_path / "b", index={"kind": "flat"})
    found = written(run, tmp_path / "2", "npy", "int8")
    assert found["recall@10"] == pytest.approx(0.9)
    assert (found["queries"], found["queries_from"]) == (6, "train")
    assert (found["users"]["scale"], found["items"]["scale"]) == (pytest.approx(1 / 127), 1.0)
    assert written(run, tmp_path / "3", "npy", "float16")["recall@10"] == 1.0


def test_a_table_of_zeros(tmp_path: Path) -> None:
    planted = clusters(users=6, items=12)
    planted.user_ND[:] = 0
    planted.item_ND[:] = 0
    run = finished(planted, tmp_path)
    found = written(run, tmp_path / "out", "npy", "int8")
    assert (found["items"]["scale"], found["recall@10"]) == (1.0, 1.0)


# Done, or not there


def test_a_remote_folder_gets_its_manifest_last(run: Run) -> None:
    manifest = write(run, ExportOptions("npy"), "memory://export-remote/x", Quiet())
    target = Storage("memory://export-remote/x")
    for file in manifest["files"]:
        assert hashlib.sha256(target.read(file["path"])).hexdigest() == file["sha256"]
    assert json.loads(target.read("manifest.json")) == manifest
    with pytest.raises(InputError, match="is there already"):
        write(run, ExportOptions("npy"), "memory://export-remote/x", Quiet())


def test_what_is_there_is_replaced_only_when_asked_and_ours(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(run, out, "npy")
    with pytest.raises(InputError, match=r"is there already\. Give another --output, or --overw"):
        written(run, out, "parquet")
    write(run, ExportOptions("parquet", sides=("items",)), str(out), Quiet(), overwrite=True)
    assert sorted(p.name for p in out.iterdir()) == ["items.parquet", "manifest.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="it was not written by this command"):
        write(run, ExportOptions("npy"), str(tmp_path / "mine"), Quiet(), overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out"]


KILLED = """
import os, signal, sys
from embedmill.pipeline.formats import ExportOptions, write
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import open_run

class Killer(Quiet):
    def update(self, done, total, unit, **facts):
        os.kill(os.getpid(), signal.SIGKILL)

write(open_run(sys.argv[1]), ExportOptions("npy"), sys.argv[2], Killer(), overwrite=True)
"""


def test_a_kill_leaves_nothing_that_claims_to_be_whole(run: Run, tmp_path: Path) -> None:
    written(run, tmp_path / "out", "npy")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    words = [sys.executable, "-c", KILLED, run.storage.root, str(tmp_path / "out")]
    done = subprocess.run(words, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left[0] == "out"
    assert left[1].endswith(".part")
    assert len(left) == 2
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert not list(tmp_path.glob("*.part/manifest.json"))


def test_an_id_that_a_format_cannot_hold(tmp_path: Path) -> None:
    for name, raw, message in (
        ("pgvector", "nu\0l", "1 users have a NUL character in their id"),
        ("word2vec", "", "word2vec has no empty words"),
        ("word2vec-binary", "", "word2vec has no empty words"),
    ):
        planted = clusters(users=9, items=7)
        planted.users[4] = raw
        run = finished(planted, tmp_path / name)
        with pytest.raises(InputError, match=message):
            written(run, tmp_path / "out", name)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob("*.part"))


def test_formats_and_numbers_that_there_are_not() -> None:
    with pytest.raises(ConfigError, match="no format 'csv'; there are parquet, npy"):
        find_format("csv", "float32")
    with pytest.raises(ConfigError, match="format qdrant has no int8; it has float32"):
        find_format("qdrant", "int8")


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = dataclasses.replace(FORMATS["lance"], package="not_installed_at_all")
    monkeypatch.setitem(formats.FORMATS, "lance", absent)
    with pytest.raises(MachineError, match=r"pip install 'embedmill\[lance\]'"):
        find_format("lance", "float32")


def test_numbers_have_as_few_digits_as_tell_them_apart() -> None:
    vector_ND = np.array([[0.1, -1e-10, 3.4e38, 0], [1 / 3, 1e16, -0.0, 123456.79]], np.float32)
    texts = line_writer.join_numbers(vector_ND, " ").to_pylist()
    assert texts[0].startswith("0.1 -1e-10 3.4e")
    again = np.array([text.split(" ") for text in texts], np.float32)
    assert np.array_equal(again, vector_ND)
    assert line_writer.join_numbers(np.array([[-127, 0, 5]], np.int8), ",").to_pylist() == [
        "-127,0,5"
    ]


@pytest.mark.parametrize("side", [*SIDES, "both"])
def test_the_command(run: Run, tmp_path: Path, embedmill: Cli, side: str) -> None:
    words = ["export", run.storage.root, "--format", "npy", "--dtype", "int8", "--side", side]
    code, out, _ = embedmill([*words, "--output", tmp_path / "a"])
    assert code == 0
    assert "recall@10 against float32" in out
    code, out, _ = embedmill([*words, "--output", tmp_path / "b", "--json"])
    said = json.loads(out)
    assert {s for s in SIDES if s in said} == (set(SIDES) if side == "both" else {side})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "csv"], "no format 'csv'"),
        (
            ["--format", "npy", "--dtype", "int4"],
            "--dtype: 'int4' is not known; allowed: float32, float16",
        ),
        (
            ["--format", "npy", "--side", "left"],
            "--side: 'left' is not known; allowed: users, items, both",
        ),
    ],
)
def test_what_the_command_refuses(
    run: Run, tmp_path: Path, embedmill: Cli, words: list[str], message: str
) -> None:
    code, _, err = embedmill(["export", run.storage.root, "--output", tmp_path / "o", *words])
    assert code == 2
    assert message in err
    assert not (tmp_path / "o").exists()


def test_the_vectors_are_those_of_the_export(run: Run, tmp_path: Path) -> None:
    written(run, tmp_path / "out", "npy")
    vectors = Vectors.of(run.artifact("export"), "items")
    assert np.array_equal(np.load(tmp_path / "out" / "items.npy"), vectors.load()[vectors.live()])
