"""Logs that were damaged in every way: each line is an event or a counted reject, never both."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from embedmill.pipeline.prepare.parse import rejects
from embedmill.pipeline.prepare.readers import text_lines
from tests.support.log_reading import Event, read_log
from tests.support.prepare_builds import build, rows, tree
from tests.support.worlds import PlantedWorld

EVENTS = PlantedWorld(users=30, events_per_user=7).events()
NAMES = ("user_id", "item_id", "time", "rating")


def _delimited(separator: str) -> Callable[[tuple[object, ...]], bytes]:
    return lambda event: separator.join(map(str, event)).encode()


def _quoted(event: tuple[object, ...]) -> bytes:
    user, *rest = map(str, event)
    return ",".join([f'"{user}"', *rest]).encode()


def _json(event: tuple[object, ...]) -> bytes:
    return json.dumps(dict(zip(NAMES, event, strict=True))).encode()


WRITERS = {"tsv": _delimited("\t"), "csv": _quoted, "jsonl": _json}
HEADERS = {"tsv": b"\t".join(n.encode() for n in NAMES), "csv": ",".join(NAMES).encode()}
SEPARATORS = {"tsv": b"\t", "csv": b",", "jsonl": b","}


def _flip(line: bytes, at: int, extra: int, _: bytes) -> bytes:
    return line[:at] + bytes([line[at] ^ (1 << extra % 8)]) + line[at + 1 :]


def _fields_swapped(line: bytes, at: int, extra: int, separator: bytes) -> bytes:
    fields = line.split(separator)
    one, two = at % len(fields), extra % len(fields)
    fields[one], fields[two] = fields[two], fields[one]
    return separator.join(fields)


def _put(what: bytes) -> Callable[[bytes, int, int, bytes], bytes]:
    return lambda line, at, extra, _: line[:at] + what + line[at:]


MUTATIONS: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "byte flipped": _flip,
    "cut": lambda line, at, extra, _: line[:at],
    "beheaded": lambda line, at, extra, _: line[at:],
    "separator doubled": lambda line, at, extra, s: line.replace(s, s + s, 1 + extra % 3),
    "separator gone": lambda line, at, extra, s: line.replace(s, b"", 1),
    "fields swapped": _fields_swapped,
    "fields repeated": lambda line, at, extra, s: line + s + line,
    "encoding": _put(b"\xff\xfe"),
    "half a character": lambda line, at, extra, _: line + b"\xe2\x82",
    "NUL": _put(b"\0"),
    "huge field": _put(b"9" * 5000),
    "quote": _put(b'"'),
    "two quotes": lambda line, at, extra, _: b'"' + line[:at] + b'"' + line[at:],
    "brace": _put(b"}{"),
    "backslash": _put(b"\\"),
    "carriage return": _put(b"\r"),
    "line break": _put(b"\n"),
    "blank lines": _put(b"\n\n\r\n"),
    "blank": lambda line, at, extra, _: b" " * (extra % 3),
    "spaces around": lambda line, at, extra, _: b" " + line + b" ",
}
DAMAGE = st.lists(
    st.tuples(
        st.integers(0, len(EVENTS) - 1),
        st.sampled_from(sorted(MUTATIONS)),
        st.integers(0, 80),
        st.integers(0, 2**16),
    ),
    max_size=25,
)


def damaged(kind: str, damage: list[tuple[int, str, int, int]]) -> tuple[bytes, list[Event]]:
    """A log with some of its lines damaged, and the events of the others."""
    lines = [WRITERS[kind](event) for event in EVENTS]
    for number, how, at, extra in damage:
        line = lines[number] or b"?"
        lines[number] = MUTATIONS[how](line, at % len(line), extra, SEPARATORS[kind])
    touched = {number for number, *_ in damage}
    kept = [
        (user, item, when * 10**6, weight)
        for number, (user, item, when, weight) in enumerate(EVENTS)
        if number not in touched
    ]
    head = [HEADERS[kind]] if kind in HEADERS else []
    return b"\n".join([*head, *lines]) + b"\n", kept


def lines_of(data: bytes) -> int:
    """Lines as the text module defines them, counted by other means."""
    return len(data.replace(b"\r\n", b"\n").rstrip(b"\r\n").split(b"\n"))


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=25, deadline=None)
@given(damage=DAMAGE, size=st.sampled_from([97, 700, 4 << 20]), cut=st.sampled_from([300, 2000]))
def test_every_line_is_an_event_or_a_reject(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    damage: list[tuple[int, str, int, int]],
    size: int,
    cut: int,
) -> None:
    data, untouched = damaged(kind, damage)
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(data)
    config = {"paths": str(path), "format": kind, "time": "time", "weight": "rating",
              "max_line_bytes": 4096}  # fmt: skip
    whole = read_log(**config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rejects, "MAX_RAW", 1 << 20)
        patch.setattr(text_lines, "_READ_BYTES", size)
        patch.setattr(text_lines, "_SLICE_BYTES", cut)
        found = read_log(**config)
    covered = [line + k for line, lines in found.spans for k in range(lines)]
    if kind == "jsonl":  # a line may hold several records, whole or broken
        covered = sorted(set(covered))
    first = 2 if kind in HEADERS else 1
    assert sorted(covered) == list(range(first, lines_of(data) + 1))
    assert len(found.events) + len(found.rejects) == len(found.spans)
    if kind != "csv":  # a quote may swallow lines behind it
        assert not Counter(untouched) - Counter(found.events)
    # Nor does it matter how the file was read.
    assert sorted(map(repr, found.events)) == sorted(map(repr, whole.events))
    assert [one[:3] for one in found.rejects] == [one[:3] for one in whole.rejects]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_stage_counts_all_of_a_damaged_log(
    tmp_path: Path, sail: SparkSession, kind: str
) -> None:
    draw = random.Random(5)
    damage = [
        (number, how, draw.randrange(80), draw.randrange(2**16))
        for number, how in enumerate(sorted(MUTATIONS) * 3)
    ]
    data, untouched = damaged(kind, damage)
    (tmp_path / "log").write_bytes(data)
    settings = {"format": kind, "max_rejects": 1.0, "max_line_bytes": 4096, "merge_by": "none"}
    run = build(sail, tree(tmp_path, str(tmp_path / "log"), events=settings), "events")
    counters, plain = run.artifact("events").counters, read_log(
        paths=str(tmp_path / "log"), time="time", weight="rating", **settings
    )  # fmt: skip
    assert counters["rows_in"] == len(plain.spans)
    assert counters["events"] == len(plain.events) >= len(untouched) - 5
    assert counters["rejected"] == len(plain.rejects) == counters["rejects_kept"]
    assert counters["rejected"] == sum(n for c, n in counters.items() if c.startswith("rejected."))
    kept = [(r["file"], r["line"], r["reason"], r["raw"]) for r in rows(run, "events", "rejects")]
    assert kept == plain.rejects
