"""`embedmill init`: a config drafted from a log reads the users and items that the log has."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from embedmill.pipeline.config import load, parse
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.inspection.draft import draft_config, to_toml
from embedmill.pipeline.prepare.inspection.roles import name_score
from embedmill.pipeline.prepare.inspection.text_dialect import text_dialect, text_encoding
from embedmill.pipeline.prepare.inspection.time_units import time_style
from tests.support.log_cases import Reading, readings
from tests.support.log_reading import read_log

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))
# What no look at the log can tell, by case.
NOT_TOLD = {
    "encoding_wrong_mark_of_latin1": "one line, with the mark of another encoding",
    "json_id_objects_and_lists": "most of its users are no ids",
    "glob_over_hive_folders": "its item is a day",
    "null_values_that_are_numbers": "-1 may be an id",
}
OTHER_REJECTS = {"time", "time_range", "weight", "weight_range"}
UNICODE = ("utf-8", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


def _is_drafted(reading: Reading) -> bool:
    expected = reading.case.read()["expected"]
    return not reading.variant and bool(expected.get("events")) and "error" not in expected


DRAFTED = [one for one in readings() if _is_drafted(one)]


@pytest.mark.parametrize("reading", DRAFTED, ids=[one.name for one in DRAFTED])
def test_a_case_of_the_corpus_reads_the_same(tmp_path: Path, reading: Reading) -> None:
    own = reading.sections(tmp_path)
    if reading.case.name in NOT_TOLD or {"aliases", "defaults"} & set(own):
        pytest.skip(NOT_TOLD.get(reading.case.name, "what to take for a missing value"))
    reading.write(tmp_path)
    own.pop("items", None)
    encoding = own.get("encoding", "utf-8")
    paths = [own["paths"]] if isinstance(own["paths"], str) else own["paths"]
    draft = draft_config(paths, "" if encoding in UNICODE else encoding)
    drafted = parse(tomllib.loads(to_toml(draft)))
    assert drafted.events.user == own["user"] or not drafted.events.header
    found = read_log(**draft.sections["events"])
    wanted, drafted_pairs = pairs(read_log(**own).events), pairs(found.events)
    if OTHER_REJECTS & set(reading.case.read()["expected"].get("rejects", {})):
        assert wanted <= drafted_pairs  # what the case rejects may be read in another way
    else:
        assert wanted == drafted_pairs


def pairs(events: list[Any]) -> Counter[tuple[str, str]]:
    return Counter((event[0], event[1]) for event in events)


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_is_drafted_with_its_columns(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load(example).events
    if own.paths[0].startswith("logs/"):  # examples/shop.toml, whose log is its reader's own
        monkeypatch.chdir(tmp_path)
        write_shop_log(tmp_path / "logs")
    draft = draft_config(own.paths)
    events = parse(tomllib.loads(to_toml(draft))).events
    for key in ("user", "item", "time", "format"):
        assert getattr(events, key) == getattr(own, key), key
    plain = own.model_copy(update={"items": None, "filter": "", "weight": events.weight})
    if example.stem == "movielens-100k":
        found = read_log(**draft.sections["events"])
        columns = {key: getattr(plain, key) for key in ("user", "item", "time", "format")}
        assert found.events == read_log(paths=own.paths, weight=plain.weight, **columns).events


def write_shop_log(folder: Path) -> None:
    """A log in the form that examples/shop.toml reads."""
    folder.mkdir()
    actions = [
        {
            "visitor": f"v{n % 5}",
            "sku": 1000 + n % 7,
            "action": "view",
            "country": "DE",
            "at": f"2026-11-01T00:00:{n:02}Z",
        }
        for n in range(40)
    ]
    text = "".join(json.dumps(one) + "\n" for one in actions)
    (folder / "2026-11-01.jsonl.gz").write_bytes(gzip.compress(text.encode()))


def test_a_table_is_drafted_as_a_table(tmp_path: Path) -> None:
    rows = pa.table({"customer_id": [1, 2], "sku": ["x", "y"], "bought_at": ["2020-01-01"] * 2})
    write_deltalake(str(tmp_path / "orders"), rows)
    events = draft_config([str(tmp_path / "orders")]).sections["events"]
    assert events["format"] == "delta"
    assert (events["user"], events["item"], events["time"]) == ("customer_id", "sku", "bought_at")


def test_a_log_without_header_gets_the_usual_names(tmp_path: Path) -> None:
    log = tmp_path / "u.data"
    log.write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    draft = draft_config([str(log)])
    events = draft.sections["events"]
    assert events["columns"] == ["user_id", "item_id", "column_3", "time"]
    assert (events["header"], events["time_unit"]) == (False, "seconds")
    assert {"events.columns", "events.user", "events.item"} <= set(draft.unsure)
    assert pairs(read_log(**events).events) == {("196", "242"): 1, ("186", "302"): 1}


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("user;item;price\n1;a;1,5\n2;b;2,5\n", ";"),
        ("1::1193::5::978300760\n1::661::3::978302109\n", "::"),
        ("u|i\n1|a,b\n2|c,d\n", "|"),
        ('u,i,note\n1,a,"x; y; z"\n2,b,"one, two"\n', ","),
        ("a b c\n1 2 3\n4 5 6\n", " "),
    ],
)
def test_separators(text: str, separator: str) -> None:
    assert text_dialect(text).separator == separator


@pytest.mark.parametrize(
    ("values", "unit", "pattern"),
    [
        (["2020-01-01T00:00:00Z", "2020-01-02"], "iso", ""),
        ([1577836800, 1577836801], "seconds", ""),
        (["1577836800000"], "milliseconds", ""),
        ([1577836800000000], "microseconds", ""),
        (["1577836800000000000"], "nanoseconds", ""),
        (["20200101", "20201231"], "pattern", "%Y%m%d"),
        ([20200101], "pattern", "%Y%m%d"),
        (["31.12.2020 23:59:00"], "pattern", "%d.%m.%Y %H:%M:%S"),
        (["12/31/2020"], "pattern", "%m/%d/%Y"),
        (["31/12/2020"], "pattern", "%d/%m/%Y"),
        (["10/Oct/2020:13:55:36 -0700"], "pattern", "%d/%b/%Y:%H:%M:%S %z"),
    ],
)
def test_units_of_time(values: list[Any], unit: str, pattern: str) -> None:
    found = time_style(values)
    assert (found.unit, found.patterns) == (unit, (pattern,) if pattern else ())
    assert found.share >= 0.99


def test_times_of_several_kinds_in_a_column() -> None:
    found = time_style(["20200101", "1577836800", "2020-01-01", "31.12.2020"])
    assert (found.unit, found.patterns, found.share) == ("auto", ("%Y%m%d", "%d.%m.%Y"), 1.0)


def test_a_day_that_may_be_a_month_is_unsure() -> None:
    assert time_style(["01/02/2020", "03/04/2020"]).unsure == "it may also be %d/%m/%Y"
    assert time_style(["01/22/2020", "03/04/2020"]).unsure == ""


def test_names_of_columns() -> None:
    assert name_score("userId", "user") > name_score("user_name", "user") == 0
    assert name_score("movie_id", "item") > 0
    assert name_score("movie_title", "item") == 0
    assert name_score("event_type", "time") == 0
    assert name_score("user", "item") == name_score("utility", "user") == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_encodings_without_a_mark(encoding: str) -> None:
    text = "utente,città\njosé,Forlì\n" * 50
    assert text_encoding(text.encode(encoding)) == encoding[:6].rstrip("-")
    assert text_encoding("naïve — “quoted”".encode("cp1252")) == "cp1252"


def test_nothing_to_draft_from(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match="the log is empty"):
        draft_config([str(tmp_path / "empty.csv")])
    (tmp_path / "text.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match="Is it a log"):
        draft_config([str(tmp_path / "text.txt")])
    with pytest.raises(InputError, match="no such file"):
        draft_config([str(tmp_path / "nothing.csv")])
    pq.write_table(pa.table({"user_id": [1, 2]}), tmp_path / "one.parquet")
    with pytest.raises(InputError, match="two columns"):
        draft_config([str(tmp_path / "one.parquet")])


def test_the_command_writes_a_config_that_profile_accepts(tmp_path: Path) -> None:
    log = tmp_path / "plays.csv"
    rows = "".join(f"u{n % 7},t{n % 11},2026-11-01 10:00:{n:02}\n" for n in range(60))
    log.write_text(f"account,track,played_at\n{rows}")

    def embedmill(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "embedmill", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    printed = embedmill("init", "plays.csv")
    assert printed.returncode == 0, printed.stderr
    assert 'user = "account"  # 7 in 60 rows: "u0", "u1", "u2", ...' in printed.stdout
    assert "# unsure: the times name no zone" in printed.stdout
    assert embedmill("init", "plays.csv", "--out", "plays.toml").returncode == 0
    assert (tmp_path / "plays.toml").read_text() == printed.stdout
    again = embedmill("init", "plays.csv", "--out", "plays.toml")
    assert again.returncode == 2
    assert "exists already. Add --force" in again.stderr
    assert embedmill("init", "plays.csv", "--out", "plays.toml", "--force").returncode == 0
    profiled = embedmill("profile", "plays.toml", "--json")
    assert profiled.returncode == 0, profiled.stderr
    assert json.loads(profiled.stdout)["counters"]["events"]["rows_in"] == 60
