"""Logs in folders by day: folders are columns, days are read from the first to the last."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from embedmill.pipeline.errors import InputError
from tests.support.log_reading import read_log
from tests.support.prepare_builds import START, build, put, rows, tree

FOLDERS = ["date=2026-10-31/country=de", "date=2026-11-01/country=a%2Fb", "date=2026-11-02"]


def dated(folder: Path) -> str:
    """A file in each of three days, of an event an hour after midnight and one a day late."""
    for day, name in enumerate(FOLDERS):
        when = START + (day - 1) * 86_400 + 3600
        put(folder / name / "a.csv", f"user,item,at\nu{day},i,{when}\nlate{day},i,{when - 86400}\n")
    return str(folder)


DATED = {"format": "csv", "user": "user", "item": "item", "time": "at"}


@pytest.mark.parametrize(
    ("start", "end", "users"),
    [
        ("", "", ["u0", "u1", "u2"]),
        ("2026-11-01", "", ["u1", "u2"]),
        ("", "2026-11-01", ["u0", "u1"]),
        ("2026-11-01", "2026-11-01", ["u1"]),
    ],
)
def test_days_are_read_from_the_first_to_the_last_included(
    tmp_path: Path, start: str, end: str, users: list[str]
) -> None:
    found = read_log(paths=dated(tmp_path), date_from=start, date_to=end, **DATED)
    assert [event[0] for event in found.events if event[0].startswith("u")] == users


def test_folders_are_columns_and_late_events_are_counted(
    tmp_path: Path, sail: SparkSession
) -> None:
    settings = {**DATED, "item": "country", "weight": "", "defaults": {"country": "nowhere"},
                "date_from": "2026-11-01"}  # fmt: skip
    run = build(sail, tree(tmp_path / "runs", dated(tmp_path / "log"), events=settings), "events")
    found = [(r["user"], r["item"]) for r in rows(run, "events", "data")]
    assert sorted(found) == [
        ("late1", "a/b"), ("late2", "nowhere"), ("u1", "a/b"), ("u2", "nowhere"),
    ]  # fmt: skip
    artifact = run.artifact("events")
    assert artifact.counters["late"] == 2
    measured = artifact.manifest.measured
    assert (measured["files"], measured["files_outside"]) == (2, 1)


def test_the_day_of_a_folder_is_that_of_the_time_zone(tmp_path: Path, sail: SparkSession) -> None:
    berlin = int(datetime(2026, 10, 31, 23, 30, tzinfo=UTC).timestamp())  # 00:30 on November 1
    log = tmp_path / "log" / "year=2026" / "month=11" / "day=1"
    put(log / "a.csv", f"user,item,at\na,i,{berlin}\nb,i,{berlin - 1800}\nc,i,{berlin - 1801}\n")
    settings = {**DATED, "weight": "", "time_zone": "Europe/Berlin",
                "date_folders": ["year", "month", "day"], "date_from": "2026-11-01"}  # fmt: skip
    run = build(sail, tree(tmp_path, str(tmp_path / "log"), events=settings), "events")
    assert run.artifact("events").counters["late"] == 1


def test_days_without_a_file(tmp_path: Path) -> None:
    log = dated(tmp_path)
    with pytest.raises(
        InputError,
        match=r"no file lies in a day from 2027-01-01 to the last; there are 3 files "
        r"from 2026-10-31 to 2026-11-02",
    ):
        read_log(paths=log, date_from="2027-01-01", **DATED)
    put(tmp_path / "elsewhere" / "b.csv", "user,item,at\n")
    with pytest.raises(InputError, match=r"elsewhere/b\.csv: lies in no folder date=… that names"):
        read_log(paths=log, date_from="2026-11-01", **DATED)
