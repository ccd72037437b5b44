"""Names of files, and JSON files: what is written, byte by byte, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from embedmill.schemas import evaluate, events, export, index, shards, train, vocab
from embedmill.schemas.files import PartFiles
from embedmill.schemas.run import Published


def test_paths_of_parts() -> None:
    assert vocab.FILES["users"].path(7) == "users/part-00007.parquet"
    assert train.FILES["contexts"].path(123456) == "contexts/part-123456.safetensors"
    assert index.shard_file("ivfsq8", 2, 11) == "items-ivfsq8-2-00011.faiss"
    assert (export.matrix_file("items"), export.matrix_ids_file("items")) == (
        "items.npy", "items.ids.parquet",
    )  # fmt: skip


@pytest.mark.parametrize("number", [0, 31, 99_999, 100_000])
def test_a_path_gives_its_number_back(number: int) -> None:
    for files in (*shards.FILES.values(), *train.FILES.values(), PartFiles("a-1/b.2")):
        assert files.number(files.path(number)) == number


def test_rows_by_file() -> None:
    files = PartFiles("users", rows_per_file=4)
    assert [files.file_of(row) for row in (0, 3, 4, 11)] == [0, 0, 1, 2]
    assert [files.count(rows) for rows in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_pairs_are_named_by_their_splits() -> None:
    assert shards.pairs_of(("train",)) == "pairs"
    assert shards.pairs_of(("train", "valid")) == "pairs_with_valid"


def test_bytes_of_a_model() -> None:
    model = train.Model(
        objective="softmax", similarity="cosine", dim=8, bias=False, mean=0.5, users=3, items=2,
        partitions=4, best_epoch=1, metric="ndcg@10",
    )  # fmt: skip
    assert train.MODEL.encode(model) == (
        b'{\n "best_epoch": 1,\n "bias": false,\n "dim": 8,\n "items": 2,\n "mean": 0.5,\n'
        b' "metric": "ndcg@10",\n "objective": "softmax",\n "partitions": 4,\n "refit": [],\n'
        b' "similarity": "cosine",\n "users": 3\n}\n'
    )


def test_whole_numbers_stay_whole_and_keys_of_metrics_are_kept() -> None:
    metrics: dict[str, int | float] = {"index.bytes": 870, "recall@10": 1.0, "users": 0}
    data = b'{\n "index.bytes": 870,\n "recall@10": 1.0,\n "users": 0\n}\n'
    assert evaluate.METRICS.encode(metrics) == data
    assert evaluate.METRICS.decode(data) == metrics
    (epoch,) = train.HISTORY.decode(
        b'[{"epoch": 1, "train_loss": 2, "learning_rate": 0.1, "ndcg@10": 0.25}]'
    )
    assert epoch.metrics == {"ndcg@10": 0.25}
    assert train.HISTORY.encode([epoch]) == (
        b'[\n {\n  "epoch": 1,\n  "learning_rate": 0.1,\n  "ndcg@10": 0.25,\n'
        b'  "train_loss": 2\n }\n]\n'
    )


def test_days_are_pairs() -> None:
    data = events.DAYS.encode([("1970-01-01", 2)])
    assert data == b'[\n [\n  "1970-01-01",\n  2\n ]\n]\n'
    assert events.DAYS.decode(data) == [("1970-01-01", 2)]


SPEC: dict[str, Any] = {
    "kind": "flat", "parameters": {}, "search_parameter": "", "metric": "inner_product", "dim": 8,
    "items": 30, "bytes": 100, "estimate": 90, "sha256": "a" * 64, "target": None,
    "incremental": None,
}  # fmt: skip


def test_a_key_that_belongs_to_shards_is_absent_elsewhere() -> None:
    one = index.IndexSpec.model_validate(SPEC)
    assert one.as_json() == SPEC
    shard = {"path": "items-flat-0-00000.faiss", "items": 30, "bytes": 100, "sha256": "b" * 64}
    sharded = {**SPEC, "sha256": None, "shards": [shard]}
    assert index.IndexSpec.model_validate(sharded).as_json() == sharded
    assert (one.search_parameter, one.target, one.incremental) == ("", None, None)


def test_a_published_run_without_a_base_has_no_key_for_it() -> None:
    one = Published(run="a", content="c", stages={}, published="2026-01-01")
    assert "continues" not in one.as_json()
    assert one.model_copy(update={"base_run": "runs/b"}).as_json()["continues"] == "runs/b"


@pytest.mark.parametrize("change", [{"extra": 1}, {"dim": "eight"}, {"items": None}])
def test_what_is_not_declared_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        index.IndexSpec.model_validate({**SPEC, **change})


def test_numbers_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        evaluate.METRICS.encode({"rmse": float("nan")})


def test_a_model_cannot_be_changed() -> None:
    rows = vocab.SideRows(total=3, shared_from=3, shared=0)
    with pytest.raises(ValidationError, match="frozen"):
        rows.total = 4  # type: ignore[misc]
