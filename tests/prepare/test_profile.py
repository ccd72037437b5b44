"""A look at a log before any run, on logs small enough to be counted by hand."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from embedmill.jobs.log_profile import profile
from embedmill.pipeline.config import parse, to_toml
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.terminal import Terminal, truncate
from tests.support.commands import Cli
from tests.support.prepare_builds import build, tree, written

QUIET = Terminal(quiet=True)

# u1 has three items, u2 two, u3 and u4 one each: 7 events on 3 days, the second of them empty.
LINES = [
    "u1\ti1\t0\t1",
    "u1\ti2\t86399\t2",
    "u1\ti3\t172800\t1",
    "u2\ti1\t0\t1",
    "u2\ti2\t172800\t1",
    "u3\ti1\t172801\t1",
    "u4\ti1\t172802\t1",
    "u1\ti1\t0\t1",  # merged
    "u5\ti1\t<b>soon</b>\t1",
    "u5\ti1\tlater\t1",
    "u6\ti1",
]


def _config(folder: Path, lines: list[str], **sections: Any) -> Path:
    """A TOML for a log of these lines."""
    log = written(folder / "log.tsv", lines)
    config = parse(tree(folder / "runs", str(log), **sections))
    path = folder / "run.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    return path


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_log_by_hand(tmp_path: Path, embedmill: Cli) -> None:
    config = _config(tmp_path, LINES, vocab={"min_user_count": 2})
    code, out, _ = embedmill(["profile", config, "--json"])
    assert code == 0
    data = json.loads(out)
    assert data["counters"]["events"]["events"] == 7
    assert data["log"]["days"]["bars"] == [["1970-01-01", 3], ["1970-01-02", 0], ["1970-01-03", 4]]
    users, items = data["log"]["users"], data["log"]["items"]
    assert (users["ids"], users["median"], users["once"], users["below"]) == (4, 1, 2, 2)
    assert users["shares"] == [[0.01, 3 / 7], [0.1, 3 / 7], [0.5, 5 / 7]]
    assert users["octaves"] == [[1, 2, 2], [2, 2, 5]]
    assert items["curve"] == [[1, 1.0], [2, 2 / 3], [4, 1 / 3]]
    assert [(one["id"], one["events"]) for one in items["heaviest"]] == [
        ("i1", 4),
        ("i2", 2),
        ("i3", 1),
    ]
    assert [(one["reason"], one["count"]) for one in data["rejects"]] == [
        ("time", 2), ("columns", 1)
    ]  # fmt: skip
    assert data["rejects"][0]["examples"][0] == {
        "file": "log.tsv", "line": 10, "raw": "u5\ti1\t<b>soon</b>\t1"
    }  # fmt: skip
    # u1 and u2 stay with five events; each has two of them held out, so u2 has no more to learn.
    assert data["counters"]["vocab"]["events_kept"] == 5
    shards = data["counters"]["shards"]
    assert [shards[name] for name in ("train", "valid", "test")] == [3, 1, 1]
    assert data["notes"] == [
        "3 of 11 lines are bad, more than events.max_rejects = 0.01 allows: a run would stop at "
        "them."
    ]
    # Nothing but the page is left.
    assert _files(tmp_path / "runs") == {"tiny/profile/index.html"}
    page = Path(data["page"]).read_text(encoding="utf-8")
    assert "&lt;b&gt;soon&lt;/b&gt;" in page
    assert "<b>soon" not in page
    assert "4 users and 3 items in 1 file" in page


def test_text_of_80_columns(tmp_path: Path, embedmill: Cli) -> None:
    wide = "題" * 90
    lines = [*LINES, f"{wide}\ti1\t0\t1", f"u7\t\x1b[31m{wide}\tnever\t1"]
    code, out, err = embedmill(["profile", _config(tmp_path, lines)])
    assert (code, "embedmill:" in err) == (0, False)
    said = out.splitlines()
    assert [line for line in said[:-1] if truncate(line, 80) != line] == []
    assert f"  events{8:>16} {61.5:>6} %" in said
    assert f"    time           {3:>10}  a time that cannot be read" in said
    assert "      log.tsv, line 10: u5\\ti1\\t<b>soon</b>\\t1" in said
    assert "  █ █" in said  # 4, 0 and 4 events: one more than by hand
    assert "\x1b" not in out
    assert "  of the first 50 %" in out
    assert said[-1].endswith("runs/tiny/profile/index.html")


def test_rules_and_late_events_are_told(tmp_path: Path, embedmill: Cli) -> None:
    log = tmp_path / "log" / "date=1970-01-02" / "log.tsv"
    log.parent.mkdir(parents=True)
    written(log, LINES[:8])
    config = parse(tree(tmp_path / "runs", str(tmp_path / "log"), events={"filter": "rating < 2"}))
    path = tmp_path / "_run.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    code, out, _ = embedmill(["profile", path])
    assert code == 0
    assert f"  filtered{1:>14} {12.5:>6} %  do not meet events.filter" in out.splitlines()
    # Of the seven others none is of the second day.
    assert f"  late    {7:>14}  of another day than their file’s folder" in out.splitlines()


def test_a_root_in_memory() -> None:
    log = "memory://" + uuid.uuid4().hex
    Storage(log).write("log.tsv", b"user_id\titem_id\ttime\trating\nu1\ti1\t1\t1\n")
    run = Run(parse(tree(f"{log}/runs", f"{log}/log.tsv")))
    found = profile(run, QUIET)
    assert found.page == f"{log}/runs/tiny/profile/index.html"
    assert b"1 user and 1 item" in run.storage.read("profile/index.html")
    assert run.manifest("events") is None


def test_what_has_finished_is_not_built_again(sail: SparkSession, tmp_path: Path) -> None:
    """No engine is opened: the one that the config names is not there."""
    log = written(tmp_path / "log.tsv", LINES[:8])
    run = build(sail, tree(tmp_path / "runs", str(log)))
    before = _files(tmp_path / "runs")
    tried = Run(run.config.model_copy(update={"run": run.config.run.model_copy(
        update={"engine": "sc://localhost:1"})}))  # fmt: skip
    found = profile(tried, QUIET)
    assert found.data.counters["shards"] == run.artifact("shards").counters
    assert _files(tmp_path / "runs") == before | {"tiny/profile/index.html"}


def test_what_is_stale_is_built_aside(sail: SparkSession, tmp_path: Path) -> None:
    log = written(tmp_path / "log.tsv", LINES[:8])
    config = tree(tmp_path / "runs", str(log))
    run = build(sail, config)
    before = {stage: run.artifact(stage).manifest for stage in ("events", "vocab", "shards")}
    changed = tree(tmp_path / "runs", str(log), vocab={"min_user_count": 2})
    found = profile(Run(parse(changed)), QUIET)
    assert found.data.counters["vocab"]["users_live"] == 2
    assert {stage: run.artifact(stage).manifest for stage in before} == before
    assert not (tmp_path / "runs" / "tiny" / "profile" / "scratch").exists()


def test_overlap_with_the_previous_run(sail: SparkSession, tmp_path: Path) -> None:
    first = written(tmp_path / "first.tsv", ["u1\ti1\t1\t1", "u2\ti1\t1\t1", "u3\ti2\t1\t1"])
    build(sail, tree(tmp_path / "runs", str(first), run={"name": "first"}), "vocab")
    second = written(tmp_path / "second.tsv", ["u1\ti1\t2\t1", "u3\ti1\t2\t1", "u4\ti9\t2\t1"])
    config = tree(tmp_path / "runs", str(second), vocab={"previous": "first", "retire_after": 1})
    found = profile(Run(parse(config)), QUIET)
    users = {"before": 3, "stayed": 2, "gone": 1, "new": 1, "back": 0, "now": 3}
    items = {"before": 2, "stayed": 1, "gone": 1, "new": 1, "back": 0, "now": 2}
    base_run = found.data.log.base_run
    assert base_run is not None
    assert base_run.as_json() == {"users": users, "items": items}


def test_a_log_of_bad_lines_alone(tmp_path: Path, embedmill: Cli) -> None:
    config = _config(tmp_path, LINES[8:])
    code, out, _ = embedmill(["profile", config])
    assert code == 0
    assert "! 3 of 3 lines are bad" in out
    assert "! No figures for vocab and shards: the log has no events." in out
    assert "log.tsv, line 4: u6\\ti1" in out


def test_minimum_counts_that_nothing_meets(tmp_path: Path, embedmill: Cli) -> None:
    sections = {"vocab": {"min_user_count": 9}, "events": {"time": ""}}
    config = _config(
        tmp_path, LINES[:8], shards={"split": "random", "valid": 0.1, "test": 0.1}, **sections
    )
    code, out, _ = embedmill(["profile", config])
    text = " ".join(out.replace("\n  ", " ").split())
    assert code == 0
    assert "No figures for vocab and shards: no event is left with vocab.min_user_count" in text
    assert "No figures by day: events.time names no column." in text
    assert "of the first" not in out


def test_days_as_numbers_and_weights_that_are_no_positives_are_noted(
    tmp_path: Path, embedmill: Cli
) -> None:
    lines = [f"u{n % 3}\ti{n}\t202001{n + 10}\t{n % 4 - 1}" for n in range(12)]
    _, out, _ = embedmill(["profile", _config(tmp_path, lines), "--json"])
    data = json.loads(out)
    assert (data["counters"]["events"]["nonpositive"], data["counters"]["events"]["events"]) == (
        6,
        6,
    )
    assert [note for note in data["notes"] if "20260131" in note or "positives" in note] == [
        "6 events of zero or negative weight are dropped, as they are no positives; "
        "events.signals.nonpositive = 'keep' would keep them.",
        "12 times such as 20260131 are read as seconds since 1970, in August 1970; if they are "
        "days, set events.time_unit = 'auto' or 'pattern' and "
        'events.time_patterns = ["%Y%m%d"].',
    ]
    days = {"time_unit": "auto", "time_patterns": ["%Y%m%d"]}
    config = _config(tmp_path / "days", lines, events=days)
    _, out, _ = embedmill(["profile", config, "--json"])
    assert not [note for note in json.loads(out)["notes"] if "20260131" in note]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ('[run]\nname = "x"\n', 2, "events: missing"),
        ('[run]\nname = "x"\n[events]\npaths = "no.tsv"\ntime = "t"\n', 3, "no such file"),
        ('[run]\nname = "x"\n[events]\npaths = "e.tsv"\ntime = "t"\n', 3, "the log is empty"),
        ('[run]\nname = "x"\n[events]\npaths = "h.tsv"\ntime = "t"\n', 3, "has no column"),
        ('[run]\nname = "x"\n[events]\npaths = "h.tsv"\n', 3, "has no column"),
        (
            '[run]\nname = "x"\n[events]\npaths = "h.tsv"\n[shards]\nsplit = "last"\n',
            2,
            "events.time: needed",
        ),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, embedmill: Cli, monkeypatch: pytest.MonkeyPatch, text: str, code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.tsv").touch()
    (tmp_path / "h.tsv").write_text("user_id\tsomething\n")
    (tmp_path / "run.toml").write_text(text)
    found, out, err = embedmill(["profile", "run.toml"])
    assert (found, out) == (code, "")
    assert says in err
    assert err.splitlines()[-1].startswith("embedmill: ")
    assert err.count("embedmill: ") == 1
    assert _files(tmp_path) == {"e.tsv", "h.tsv", "run.toml"}


def test_what_may_be_read_wrongly_is_said(tmp_path: Path, embedmill: Cli) -> None:
    lines = ['u1,"5\\" disk",0', "NULL,i1,0", "u2,\\N,0", "u2,i1,1", "u3,i1,2"]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["user,item,time", *lines]) + "\n")
    columns = {"user": "user", "item": "item", "time": "time", "weight": "", "format": "csv"}
    path = tmp_path / "run.toml"
    notes = {}
    for name, keys in (("as it is", {}), ("set", {"escape": "\\", "null_values": ["NULL", "\\N"]})):
        sections = tree(tmp_path / "runs", str(log), events={**columns, **keys})
        path.write_text(to_toml(parse(sections)), encoding="utf-8")
        code, out, _ = embedmill(["profile", path, "--json"])
        assert code == 0
        notes[name] = "\n".join(json.loads(out)["notes"])
    assert (
        "Among the ids of users are 'NULL': if these mean that there is no id" in notes["as it is"]
    )
    assert "Among the ids of items are '\\N'" in notes["as it is"]
    assert "Lines rejected as 1 'quote' have \\\" in them" in notes["as it is"]
    assert "events.escape = '\\'" in notes["as it is"]
    assert "null_values" not in notes["set"]
    assert "escape" not in notes["set"]
