"""Data stages built in tests, and what they wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from embedmill.pipeline.config import parse
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.prepare import events, shards, vocab
from embedmill.pipeline.prepare.vocabulary import base_vocabulary
from embedmill.pipeline.store.run import Run
from tests.support.worlds import config_tree, laid

START = 1_793_491_200  # 2026-11-01T00:00:00Z
DATA_STAGES = ("events", "vocab", "shards")
Tree = dict[str, Any]


def tree(root: Path | str, paths: Any, **sections: Mapping[str, Any]) -> Tree:
    """A run over a log with columns user_id, item_id, time, rating; the split is the default."""
    base = config_tree(root, paths)
    del base["shards"]
    return laid(base, **sections)


def build(session: SparkSession, config: Tree, last: str = "shards") -> Run:
    """The data stages up to `last`."""
    run = Run(parse(config))
    for stage in DATA_STAGES[: DATA_STAGES.index(last) + 1]:
        build_stage(session, run, stage)
    return run


def build_stage(session: SparkSession, run: Run, stage: str) -> None:
    """One data stage; those before it are there."""
    room, stamps = {
        "events": (events, events.source_stamps),
        "vocab": (vocab, base_vocabulary.source_stamps),
        "shards": (shards, None),
    }[stage]
    out = run.writer(stage, stamps(run) if stamps else None)
    room.build(session, run, out, Quiet())


def hashes(run: Run, stage: str, folder: str = "") -> dict[str, str]:
    """sha256 by path."""
    return {f.path: f.sha256 for f in run.artifact(stage).files(folder)}


def rows(run: Run, stage: str, folder: str) -> list[dict[str, Any]]:
    """All rows below a folder, in order of files."""
    return run.artifact(stage).read_tables(folder).to_pylist()  # type: ignore[no-any-return]


def same(one: Run, two: Run, stage: str) -> None:
    """Assert that two runs have the same artifact."""
    ours, theirs = one.artifact(stage), two.artifact(stage)
    assert ours.counters == theirs.counters
    for folder in sorted({f.path.split("/")[0] for f in ours.manifest.files if f.rows}):
        assert rows(one, stage, folder) == rows(two, stage, folder)
    assert hashes(one, stage) == hashes(two, stage)
    assert ours.manifest.content == theirs.manifest.content


def written(path: Path, lines: list[str]) -> Path:
    """A TSV with the header of `tree`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["user_id\titem_id\ttime\trating", *lines]) + "\n", encoding="utf-8")
    return path


def put(path: Path, data: str | bytes | dict[str, Any]) -> str:
    """A file of text, bytes or a Parquet table; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, dict):
        pq.write_table(pa.table(data), path)
    elif isinstance(data, str):
        path.write_text(data, encoding="utf-8")
    else:
        path.write_bytes(data)
    return str(path)


def jsonl(*records: Any) -> str:
    """Records of JSON, one a line."""
    return "".join(json.dumps(record) + "\n" for record in records)
