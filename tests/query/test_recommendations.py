"""Recommendations for a file of users: every id is answered or counted."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.index import retriever_of
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.query import id_files, lookup, recommendations
from embedmill.pipeline.query.id_files import IdColumn, read_ids
from embedmill.pipeline.query.recommendations import SCHEMA, RecommendOptions, recommend_all
from embedmill.pipeline.store.run import Run
from tests.support.commands import Cli
from tests.support.runs import clusters, finished


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """User 7 is retired, of user 8 all events are held out."""
    world = clusters()
    splits = {name: [p for p in pairs if p[0] != 7] for name, pairs in world.splits.items()}
    splits["train"] = [p for p in splits["train"] if p[0] != 8]
    world = dataclasses.replace(
        world,
        splits=splits,
        retired=frozenset({"u7"}),
        titles=[f"Film {i}" for i in range(30)],
        categories=[["even" if i % 2 == 0 else "odd"] for i in range(30)],
    )
    return finished(world, tmp_path_factory.mktemp("runs"))


def answers(path: Path) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for row in pq.read_table(path).to_pylist():
        mine = found.setdefault(row["user"], [])
        assert row["rank"] == len(mine) + 1
        mine.append((row["item"], row["score"]))
    return found


def test_a_file_of_users_has_what_each_is_recommended(run: Run, tmp_path: Path) -> None:
    users = [f"u{u}" for u in range(40) if u not in (7, 8)]
    (tmp_path / "users.txt").write_text("\n".join(users))
    pieces = read_ids(str(tmp_path / "users.txt"))
    report = recommend_all(
        retriever_of(run), pieces, str(tmp_path / "o.parquet"), RecommendOptions(5), Quiet()
    )
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.schema.remove_metadata().equals(SCHEMA)
    assert report.rows == table.num_rows == 38 * 5
    found = answers(tmp_path / "o.parquet")
    assert list(found) == users
    for user in users:
        one = [
            (hit.item, pytest.approx(hit.score, abs=1e-6)) for hit in lookup.recommend(run, user, 5)
        ]
        assert found[user] == one


def test_every_id_is_accounted_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedmill: Cli
) -> None:
    monkeypatch.setattr(id_files, "_CHUNK", 9)
    monkeypatch.setattr(recommendations, "_BATCH", 2)
    lines = ["u3", "nobody", "u7", "u8", "u3", "", "u9", "none", "u3", "u0"]
    (tmp_path / "users.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    words = ["recommend", run.storage.root, "--users", tmp_path / "users.txt", "-k", "2"]
    words += ["--output", tmp_path / "o.parquet"]
    code, out, _ = embedmill([*words, "--json"])
    assert code == 0
    want = {
        "users_in": 10, "answered": 3, "nothing_left": 0, "repeated": 2, "unknown": 2,
        "retired": 1, "held_out": 1, "blank": 1, "rows": 6,
    }  # fmt: skip
    assert json.loads(out) == want
    stored = pq.read_metadata(tmp_path / "o.parquet").metadata[b"embedmill"]
    assert json.loads(stored) == want
    assert list(answers(tmp_path / "o.parquet")) == ["u3", "u9", "u0"]
    code, out, _ = embedmill(words)
    assert code == 0
    assert "unknown" in out
    assert "nobody, none" in out
    assert "answered" in out


def test_the_same_file_again(run: Run, tmp_path: Path) -> None:
    for name in "ab":
        pieces = [pa.array([f"u{u}" for u in range(7)])]
        recommend_all(retriever_of(run), pieces, str(tmp_path / name), RecommendOptions(5), Quiet())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_filter_and_seen_items(run: Run, tmp_path: Path, embedmill: Cli) -> None:
    (tmp_path / "users.csv").write_text("a,user\n1,u3\n2,u4\n")
    code, _, _ = embedmill([
        "recommend", run.storage.root, "--users", tmp_path / "users.csv", "--column", "user",
        "--output", tmp_path / "o.parquet", "--filter", "categories=odd", "-k", "6", "--with-seen",
    ])  # fmt: skip
    assert code == 0
    found = answers(tmp_path / "o.parquet")
    assert {item for item, _ in found["u3"][:3]} == {"i3", "i13", "i23"}
    assert all(int(item[1:]) % 2 for some in found.values() for item, _ in some)


def test_users_who_have_seen_all_that_is_allowed(run: Run, tmp_path: Path) -> None:
    retriever = retriever_of(run)
    asked = RecommendOptions(5, allowed=retriever.item_filter(["i3", "i8"]))
    report = recommend_all(retriever, [pa.array(["u3", "u4"])], str(tmp_path / "o"), asked, Quiet())
    assert (report.counts["answered"], report.counts["nothing_left"], report.rows) == (1, 1, 2)


def test_nothing_is_left_of_a_file_that_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_bytes(b"u1\nu2\n\xff\xfe\nu3\n")
    pieces = read_ids(str(tmp_path / "users.txt"))
    out = tmp_path / "out" / "o.parquet"
    with pytest.raises(InputError, match="line 3 is not UTF-8"):
        recommend_all(retriever_of(run), pieces, str(out), RecommendOptions(5), Quiet())
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "recommend needs --user ID, or --users FILE with --output FILE"),
        (["--user", "u1", "--users", "x"], "recommend needs --user ID"),
        (["--users", "x"], "recommend needs --user ID"),
        (["--user", "u1", "--filter", "odd"], "--filter: 'odd' is not COLUMN=VALUE"),
        (["--user", "u1", "--filter", "categories=od"], 'Did you mean "odd"'),
        (["--users", "/nowhere/x", "--output", "/tmp/o"], "/nowhere/x: no such file"),
    ],
)
def test_what_the_command_refuses(run: Run, embedmill: Cli, words: list[str], message: str) -> None:
    code, _, err = embedmill(["recommend", run.storage.root, *words])
    assert code in (2, 3)
    assert message in err
    assert "Traceback" not in err


# Files of ids

AWKWARD = ["a b", 'q"uote', "comma,d", "x\ty", "новый", " spaced ", "NULL", "nan", "0", "00"]


def together(url: Path, *words: str) -> list[Any]:
    return [one for piece in read_ids(str(url), IdColumn(*words)) for one in piece.to_pylist()]


def test_ids_of_any_content_from_each_kind_of_file(tmp_path: Path) -> None:
    import csv

    (tmp_path / "u.txt").write_text("\n".join(AWKWARD) + "\n", encoding="utf-8")
    assert together(tmp_path / "u.txt") == AWKWARD
    ids = [*AWKWARD, "line\nbreak", ""]
    for name, separator in (("u.csv", ","), ("u.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as raw:
            csv.writer(raw, delimiter=separator).writerows([["n", "id"], *([1, i] for i in ids)])
        assert together(tmp_path / name, "id") == ids
        assert together(tmp_path / name, "", "id") == ids
    pq.write_table(pa.table({"id": ids}), tmp_path / "u.parquet")
    assert together(tmp_path / "u.parquet") == ids
    pq.write_table(pa.table({"id": [7, None]}), tmp_path / "n.parquet")
    assert together(tmp_path / "n.parquet") == ["7", None]


@pytest.mark.parametrize(
    ("name", "data", "column", "message"),
    [
        ("u.csv", b"a,b\n1,2\n", "", "several columns; there are a, b. Say with --column"),
        ("u.csv", b"a,b\n1,2\n", "c", "no column 'c'; there are a, b"),
        ("u.csv", b"a,b\n1,2\n3\n", "b", "cannot be read as a list of ids"),
        ("u.parquet", b"PAR1", "b", "cannot be read as a list of ids"),
        ("u.txt", b"1\n", "b", "column 'b' of a file with an id on each line"),
        ("u.txt", b"\xe9\n", "", "line 1 is not UTF-8"),
        ("u.csv.gz", gzip.compress(b"u\n1\n", mtime=0)[:-9], "", "compression is damaged"),
        ("u.csv", b"7\n8\n", "9", "no column '9'; there are 7"),
    ],
)
def test_a_file_that_has_no_ids(
    tmp_path: Path, name: str, data: bytes, column: str, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        together(tmp_path / name, column)


def test_what_is_taken_for_a_header_is_said(run: Run, tmp_path: Path, embedmill: Cli) -> None:
    (tmp_path / "ids.csv.gz").write_bytes(gzip.compress(b"u3\nu4\nu5\n"))
    (tmp_path / "named.csv").write_text("user\nu3\nu4\n")
    words = ["recommend", run.storage.root, "--output", tmp_path / "o.parquet", "--users"]
    cases: list[tuple[str, list[str], list[str], str]] = [
        ("ids.csv.gz", [], ["u3", "u4", "u5"], "no header, as its first line, 'u3', is an id"),
        ("ids.csv.gz", ["--no-header"], ["u3", "u4", "u5"], ""),
        ("ids.csv.gz", ["--header"], ["u4", "u5"], ""),
        ("named.csv", [], ["u3", "u4"], "its first line, 'user', is taken for a header"),
        ("named.csv", ["--no-header"], ["u3", "u4"], ""),
    ]
    for file, more, answered, said in cases:
        code, _, err = embedmill([*words, tmp_path / file, *more])
        assert code == 0
        assert list(answers(tmp_path / "o.parquet")) == answered
        assert (said in err) if said else ("header" not in err)
