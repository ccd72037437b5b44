"""Sizes beyond 32 bits, and skew, by stand-ins that take little memory."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from embedmill.pipeline import train
from embedmill.pipeline.index.retrieval.row_search import open_index
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.plan import Layout, StepPlan, rows_in
from embedmill.pipeline.views.tables import TrainedTable
from embedmill.schemas import export, shards, vocab
from embedmill.schemas.train import FILES
from tests.support.artifacts import arrays_of
from tests.support.runs import clusters, finished, store
from tests.support.trained import tables
from tests.support.worlds import config

ROWS = 5_000_000_000


def test_rows_and_times_have_64_bits() -> None:
    schemas = [vocab.VOCAB, shards.SHARD, export.embeddings(4, bias=True), export.MATRIX_IDS]
    for schema in schemas:
        for field in schema:
            if field.name in ("row", "user_row", "item_row", "count", "time", "hash"):
                assert field.type == pa.int64(), field


def test_a_table_of_five_billion_rows_is_laid_out() -> None:
    layout = Layout(64, 4, 1)
    assert sum(rows_in(p, 64, ROWS) for p in range(64)) == ROWS
    assert layout.local_rows(ROWS) == ROWS // 4
    offsets = layout.offsets(ROWS)
    assert int(offsets.max()) == ROWS // 64 * 15
    plan = StepPlan((ROWS // 2, ROWS // 2), 16_384)
    assert plan.span(plan.steps - 1, 1)[1] == ROWS // 2
    assert sum(plan.batch_sizes(plan.steps - 1)) <= 16_384


def test_a_table_file_of_more_than_four_gigabytes(tmp_path: Path) -> None:
    """The file is sparse: only its last row is on the disk."""
    run = clusters(users=3, items=3, dim=4).store(tmp_path, run={"partitions": 1})
    artifact, rows = run.artifact("train"), 300_000_000
    path = artifact.storage.local_path(FILES["users"].path(0))
    size = rows * 4 * 4
    header = {"weight": {"dtype": "F32", "shape": [rows, 4], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    with open(path, "wb") as raw:
        raw.write(struct.pack("<Q", len(text)) + text)
        raw.seek(8 + len(text) + size - 16)
        raw.write(np.array([1, 2, 3, 4], "<f4").tobytes())
    table = TrainedTable(artifact, "users", rows, {"weight": 4}, 1)
    assert table.read("weight", rows - 2, rows).tolist() == [[0, 0, 0, 0], [1, 2, 3, 4]]


@pytest.mark.exhaustive
def test_ids_of_more_than_two_gigabytes(tmp_path: Path) -> None:
    """Chunks that no single array of strings could hold; all share one page of zeros."""
    searcher = open_index(finished(clusters(users=40, items=30), tmp_path).artifact("index"))
    length = 900 << 20
    zeros = pa.py_buffer(np.zeros(length, np.uint8))
    ends = pa.py_buffer(np.array([0, length], np.int32))
    large = pa.Array.from_buffers(pa.string(), 1, [None, ends, zeros])
    chunks = [pa.array(["a", "b"]), large, large, large, pa.array(["c"])]
    with pytest.raises(pa.ArrowInvalid):
        pa.concat_arrays(chunks)
    searcher.__dict__["id_N"] = pa.chunked_array(chunks)
    assert searcher.positions_of_ids(pa.array(["c", "b", "x", "a"])).tolist() == [5, 1, -1, 0]


def test_an_item_with_a_fifth_of_the_events(tmp_path: Path) -> None:
    """Training stays finite, whether negatives are drawn by count or not."""
    draw = np.random.default_rng(1)
    pairs = [(u, int(i), 1.0) for u in range(60) for i in draw.choice(np.arange(1, 40), 8, False)]
    pairs += [(u, 0, 1.0) for u in range(60) for _ in range(2)]
    assert sum(item == 0 for _, item, _ in pairs) == len(pairs) // 5
    nothing = arrays_of([])
    for power in (0.0, 1.0):
        softmax = {"negatives": 8, "negatives_power": power, "in_batch": True}
        settings = {"objective": "softmax", "dim": 8, "epochs": 2, "softmax": softmax}
        run = Run(config(tmp_path / str(power), "log.tsv", train=settings))
        store(run, 60, 40, {"train": arrays_of(pairs), "valid": nothing, "test": nothing})
        train.build(run, run.writer("train"), Quiet())
        item_ND = tables(run)["items"]
        assert np.isfinite(np.asarray(item_ND)).all()
        assert np.linalg.norm(np.asarray(item_ND), axis=1).max() < 100
