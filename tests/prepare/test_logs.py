"""The right value from every log: each folder of `tests/logs`, in all its formats and variants."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse
from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.prepare.items import write_item_metadata
from embedmill.pipeline.prepare.readers import text_lines
from embedmill.pipeline.query.id_files import IdColumn, read_ids
from embedmill.pipeline.store.run import Run
from embedmill.schemas.events import ITEMS
from tests.support.log_cases import CASES, Reading, expected_events, readings
from tests.support.log_reading import Event, read_log
from tests.support.prepare_builds import build, rows, tree

READINGS = readings()
# Cases of events, as they stand, without the variants of their config.
SLICED = [one for one in READINGS if not one.variant and "events" in one.case.read()["expected"]]


def test_every_folder_is_a_case() -> None:
    assert {path.name for path in CASES.iterdir() if path.is_dir()} == {
        one.case.name for one in READINGS
    }


@pytest.mark.parametrize("reading", READINGS, ids=[one.name for one in READINGS])
def test_what_is_read_is_what_the_log_says(tmp_path: Path, reading: Reading) -> None:
    reading.write(tmp_path)
    case = reading.case.read()
    expected = case["expected"]
    if "error" in expected:
        with pytest.raises(EmbedmillError) as caught:
            _read_all(reading, tmp_path)
        shown = f"{caught.value}"
        assert expected["error"] in shown, shown
        return
    found = _read_all(reading, tmp_path)
    if "events" in found:
        wanted = expected_events(case)
        assert _fields(found["events"], wanted) == wanted
        reasons = Counter(reason for _, _, reason, _ in found["rejects"])
        assert reasons == expected.get("rejects", {})
    for what in ("items", "ids"):
        if what in found:
            assert [_plain(one) for one in found[what]] == expected[what]


@pytest.mark.parametrize("size", [1, 64])
@pytest.mark.parametrize("reading", SLICED, ids=[one.name for one in SLICED])
def test_nor_does_it_matter_how_a_file_is_sliced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: Reading, size: int
) -> None:
    reading.write(tmp_path)
    whole = read_log(**reading.sections(tmp_path))
    monkeypatch.setattr(text_lines, "_READ_BYTES", 97)
    monkeypatch.setattr(text_lines, "_SLICE_BYTES", size)
    sliced = read_log(**reading.sections(tmp_path))
    assert sorted(map(repr, sliced.events)) == sorted(map(repr, whole.events))
    assert [one[:3] for one in sliced.rejects] == [one[:3] for one in whole.rejects]


@pytest.mark.exhaustive
@pytest.mark.parametrize("reading", SLICED, ids=[one.name for one in SLICED])
def test_the_stage_reads_the_same(tmp_path: Path, sail: SparkSession, reading: Reading) -> None:
    reading.write(tmp_path)
    plain = read_log(**reading.sections(tmp_path))
    if not plain.events:
        pytest.skip("a log without an event fails the stage")
    settings = {"time": "", "weight": "", **reading.sections(tmp_path), "merge_by": "none"}
    settings["signals"] = {"nonpositive": "keep", **settings.get("signals", {})}
    run = build(sail, _tree(tmp_path, settings), "events")
    stored = rows(run, "events", "data")
    fields = [(r["user"], r["item"], r["time"], r["weight"]) for r in stored]
    assert sorted(fields, key=repr) == sorted(plain.events, key=repr)
    assert run.artifact("events").counters["rejected"] == len(plain.rejects)


def _plain(value: object) -> object:
    """As TOML has it: lists for tuples."""
    return list(value) if isinstance(value, tuple) else value


def _read_all(reading: Reading, folder: Path) -> dict[str, Any]:
    """What the case states something of: events, rejects, items, ids."""
    case = reading.case.read()
    found: dict[str, Any] = {}
    stated = case["expected"]
    if "ids" in case:
        options = {name: value for name, value in case["ids"].items() if name != "file"}
        options["name"] = options.pop("column", "")
        pieces = read_ids(str(folder / case["ids"]["file"]), IdColumn(**options))
        found["ids"] = [one for piece in pieces for one in piece.to_pylist()]
    if "items" in case:
        found["items"] = _metadata(reading, folder)
    if {"events", "rejects"} & set(stated) or not found:
        log = read_log(**{**reading.sections(folder), "items": None})
        found["events"], found["rejects"] = log.events, log.rejects
    return found


def _tree(folder: Path, events: dict[str, Any]) -> dict[str, Any]:
    """A config of the case's section `events`, whether it names times or not."""
    shards = {"split": "random", "valid": 0.1, "test": 0.1}
    return tree(folder / "runs", events["paths"], events=events, shards=shards)


def _metadata(reading: Reading, folder: Path) -> list[tuple[str, str, list[str]]]:
    """Items' ids, titles and categories, as the stage writes them."""
    events = {"time": "", "weight": "", **reading.sections(folder)}
    config = parse(_tree(folder, events))
    assert config.events.items
    write_item_metadata(config.events.items, Run(config).writer("events", None))
    (written,) = (folder / "runs").rglob(ITEMS)
    return [tuple(row.values()) for row in pq.read_table(written).to_pylist()]


def _fields(events: list[Event], wanted: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """As many fields of each event as the case states."""
    width = len(wanted[0]) if wanted else 2
    return sorted((event[:width] for event in events), key=repr)
