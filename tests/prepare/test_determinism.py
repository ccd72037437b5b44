"""One log however it comes: cut, shuffled, packed, in other formats, delivered twice."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse
from embedmill.pipeline.prepare import events as events_stage
from embedmill.pipeline.store.run import Run
from tests.support.prepare_builds import DATA_STAGES, Tree, build, build_stage, hashes, jsonl, tree

Row = tuple[str, str, int, str, str]
NAMES = ("user_id", "item_id", "time", "rating", "part")
# Sums of these depend on their order in the last bits.
WEIGHTS = ("0.1", "0.7", "1e16", "-1e16", "3", "1e-9")
RULES: dict[str, dict[str, Any]] = {
    "largest": {},
    "summed": {"merge_by": "pair", "merge_weight": "sum", "drop_repeats": True},
    "decayed": {
        "merge_by": "pair", "merge_weight": "sum", "merge_time": "first", "drop_repeats": True,
        "signals": {"half_life_days": 0.001, "max_user_events": 9, "keep": "sample"},
    },
}  # fmt: skip


def log(number: int = 700) -> list[Row]:
    """Events without two that are alike; many of a pair, many of a time."""
    draw = random.Random(21)
    found = {
        (
            f"u{int(draw.random() ** 2 * 40)}",
            draw.choice(("ü", "漢", "i")) + str(int(draw.random() ** 2 * 20)),
            draw.randrange(300),
            draw.choice(WEIGHTS),
            draw.choice(("train", "train", "valid", "test")),
        )
        for _ in range(number)
    }
    return sorted(found)


def as_tsv(rows: Sequence[Row], folder: Path, name: str) -> None:
    text = "\n".join("\t".join(map(str, row)) for row in [NAMES, *rows])
    (folder / f"{name}.tsv").write_text(text, encoding="utf-8")


def as_gzip(rows: Sequence[Row], folder: Path, name: str) -> None:
    text = "\r\n".join(",".join(map(str, row)) for row in [NAMES, *rows]) + "\r\n"
    (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))


def as_jsonl(rows: Sequence[Row], folder: Path, name: str) -> None:
    text = jsonl(*(dict(zip(NAMES, row, strict=True)) for row in rows))
    packed = zstandard.ZstdCompressor().compress(text.encode())
    (folder / f"{name}.jsonl.zst").write_bytes(packed)


def as_parquet(rows: Sequence[Row], folder: Path, name: str) -> None:
    columns = dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))
    columns["rating"] = [float(weight) for weight in columns["rating"]]
    pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=13)


WRITERS: tuple[Callable[[Sequence[Row], Path, str], None], ...] = (
    as_tsv, as_gzip, as_jsonl, as_parquet,
)  # fmt: skip


def scattered(rows: Sequence[Row], folder: Path, seed: int, *, twice: bool = False) -> None:
    """Shuffled, in nine files of four formats whose names are in no order; some come twice."""
    draw, folder_of = random.Random(seed), [folder / "a", folder / "b"]
    for one in folder_of:
        one.mkdir(parents=True)
    rows = draw.sample(list(rows), len(rows))
    for number in range(9):
        part, write = rows[number::9], WRITERS[number % len(WRITERS)]
        write(part, folder_of[number % 2], f"{draw.random()}")
        if twice and number % 3:
            WRITERS[draw.randrange(len(WRITERS))](part[::-1], folder, f"again-{number}")


def config(folder: Path, root: Path, rule: str) -> Tree:
    shards = {
        "split": "given", "valid": 0.1, "given_train": ["train"], "given_valid": ["valid"],
        "given_test": ["test"], "pairs": {"window": 3, "subsample": 0.02},
    }  # fmt: skip
    events = {"format": "auto", "split": "part", **RULES[rule]}
    sections = {"shards": shards, "vocab": {"min_user_count": 3}, "train": {"weight_power": 1}}
    return tree(root, str(folder), events=events, **sections)


def data(run: Run) -> Mapping[str, Any]:
    """What must be the same: events and all that is made of them, whatever else was counted."""
    contents = {stage: run.artifact(stage).manifest.content for stage in DATA_STAGES[1:]}
    return {"events": hashes(run, "events", "data"), **contents}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Small tasks, parts, ranges and files from now on."""

    def shrink() -> None:
        for name, value in {
            "engine.frames.TASK_BYTES": 700, "readers.read_plan.TASK_BYTES": 1500,
            "readers.text_lines._SLICE_BYTES": 900,
            "vocabulary.row_numbers._RANGE_ROWS": 7, "vocabulary.row_numbers._SAMPLE": 3,
        }.items():  # fmt: skip
            monkeypatch.setattr(f"embedmill.pipeline.prepare.{name}", value)

    return shrink


@pytest.mark.parametrize("rule", RULES)
def test_however_a_log_is_cut_and_delivered(
    tmp_path: Path, sail: SparkSession, rule: str, small: Callable[[], None]
) -> None:
    for name in ("whole", "scattered", "twice"):
        (tmp_path / name).mkdir()
    as_tsv(log(), tmp_path / "whole", "log")
    scattered(log(), tmp_path / "scattered", seed=1)
    scattered(log(), tmp_path / "twice", seed=2, twice=True)
    whole = build(sail, config(tmp_path / "whole", tmp_path / "one", rule))
    small()
    cut = build(sail, config(tmp_path / "whole", tmp_path / "two", rule))
    other = build(sail, config(tmp_path / "scattered", tmp_path / "three", rule))
    twice = build(sail, config(tmp_path / "twice", tmp_path / "four", rule))
    assert data(whole) == data(cut) == data(other) == data(twice)
    contents = [run.artifact("events").manifest.content for run in (whole, cut, other)]
    assert len(set(contents)) == 1
    rows = [run.artifact("events").counters["rows_in"] for run in (whole, twice)]
    assert rows[1] > 1.5 * rows[0] > 900
    built = [
        {run.artifact(stage).manifest.fingerprint for run in (whole, cut, other, twice)}
        for stage in ("vocab", "shards")
    ]
    assert [len(prints) for prints in built] == [1, 1]


@pytest.mark.exhaustive
@pytest.mark.spark
def test_scattered_on_another_engine(
    tmp_path: Path, sail: SparkSession, spark: SparkSession, small: Callable[[], None]
) -> None:
    (tmp_path / "whole").mkdir()
    as_tsv(log(), tmp_path / "whole", "log")
    scattered(log(), tmp_path / "twice", seed=3, twice=True)
    one = build(sail, config(tmp_path / "whole", tmp_path / "sail", "decayed"))
    small()
    key = "spark.sql.shuffle.partitions"
    before = spark.conf.get(key)
    spark.conf.set(key, "7")
    try:
        two = build(spark, config(tmp_path / "twice", tmp_path / "spark", "decayed"))
    finally:
        spark.conf.set(key, before)
    assert data(one) == data(two)


def test_what_is_built_from_the_same_rows_is_up_to_date(tmp_path: Path, sail: SparkSession) -> None:
    """A log that was cut anew makes events stale, and nothing else once they are built."""
    (tmp_path / "log").mkdir()
    as_tsv(log(), tmp_path / "log", "log")
    run = build(sail, config(tmp_path / "log", tmp_path / "runs", "largest"))
    (tmp_path / "log" / "log.tsv").unlink()
    scattered(log(), tmp_path / "log", seed=4)
    run.discard("events")
    build_stage(sail, run, "events")
    assert run.up_to_date("events", events_stage.source_stamps(run))
    assert run.up_to_date("vocab")
    assert run.up_to_date("shards")


def fingerprint(folder: Path) -> str:
    run = Run(parse(config(folder, "runs", "largest")))
    return run.writer("events", events_stage.source_stamps(run)).fingerprint


def test_the_fingerprint_is_of_content_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("here", "there", "country=de", "country=at"):
        scattered(log(50), tmp_path / name, seed=5)
    assert fingerprint(tmp_path / "here") == fingerprint(tmp_path / "there")
    # A folder that is a column is content.
    assert fingerprint(tmp_path / "country=de") != fingerprint(tmp_path / "country=at")
    changed = next((tmp_path / "there" / "a").iterdir())
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert fingerprint(tmp_path / "here") != fingerprint(tmp_path / "there")
