"""Vectors come out in order of rows, with their ids, ready for an inner product."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmill.pipeline.errors import (
    ContractError,
    CorruptArtifactError,
    InputError,
    NotFiniteError,
)
from embedmill.pipeline.export import ready, stage, vector_ranges
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import Vectors, spec_of
from embedmill.schemas.export import embeddings
from embedmill.schemas.files import PartFiles
from tests.support.artifacts import reseal
from tests.support.runs import StoredRun, clusters

RATING = {"objective": "rating", "similarity": "dot", "mean": 3.5}


def exported(world: StoredRun, root: Path | str, **sections: Any) -> Artifact:
    run = world.store(root, **sections)
    return rebuilt(run)


def rebuilt(run: Run) -> Artifact:
    stage.build(run, run.writer("export"), Quiet())
    return run.artifact("export")


def files_of(rows: int) -> dict[str, PartFiles]:
    """Files of so many rows each."""
    return {side: PartFiles(side, rows_per_file=rows) for side in ("users", "items")}


def rating_world() -> StoredRun:
    draw = np.random.default_rng(1)
    return dataclasses.replace(
        clusters(users=9, items=7, dim=5),
        model=RATING,
        user_bias=draw.standard_normal(9).astype(np.float32),
        item_bias=draw.standard_normal(7).astype(np.float32),
    )


def test_rows_are_in_order_and_carry_their_ids(tmp_path: Path) -> None:
    world = dataclasses.replace(clusters(users=9, items=7), model={"similarity": "dot"})
    art = exported(world, tmp_path)
    table = art.read_tables("items")
    assert table.schema.equals(embeddings(8, bias=False))
    assert table["row"].to_pylist() == list(range(7))
    assert table["id"].to_pylist() == world.items
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), world.item_ND)
    assert art.counters == {"users_in": 9, "users": 9, "items_in": 7, "items": 7}


def test_counts_are_those_of_the_vocabulary(tmp_path: Path) -> None:
    world = clusters()
    run = world.store(tmp_path)
    art = rebuilt(run)
    want = run.artifact("vocab").read_tables("items")["count"]
    assert art.read_tables("items")["count"].equals(want)


def test_cosine_vectors_have_unit_length_and_zero_stays_zero(tmp_path: Path) -> None:
    world = clusters(users=9, items=7)
    world.item_ND[3] = 0
    art = exported(world, tmp_path)
    item_ND = Vectors.of(art, "items").load()
    length_N = np.linalg.norm(item_ND, axis=1)
    assert length_N[3] == 0
    assert np.allclose(np.delete(length_N, 3), 1, atol=1e-6)
    cosine = world.item_ND[0] @ world.item_ND[1]
    cosine /= np.linalg.norm(world.item_ND[0]) * np.linalg.norm(world.item_ND[1])
    assert item_ND[0] @ item_ND[1] == pytest.approx(cosine, abs=1e-6)


def test_lengths_are_right_for_tiny_and_huge_vectors() -> None:
    weight_ND = np.array([[3e-30, 4e-30], [3e30, 4e30]], np.float32)
    assert np.allclose(ready(weight_ND, None, "items", "cosine"), [[0.6, 0.8]] * 2)


def test_a_rating_is_mean_and_user_bias_and_inner_product(tmp_path: Path) -> None:
    world = rating_world()
    assert world.user_bias is not None
    assert world.item_bias is not None
    art = exported(world, tmp_path)
    spec = spec_of(art)
    assert (spec.dim, spec.model_dim, spec.bias, spec.mean) == (6, 5, True, 3.5)
    users, items = art.read_tables("users"), art.read_tables("items")
    assert items.schema.equals(embeddings(6, bias=True))
    user, item = 4, 2
    said = spec.mean + users["bias"][user].as_py()
    said += np.dot(users["vector"][user].as_py(), items["vector"][item].as_py())
    want = 3.5 + world.user_bias[user] + world.item_bias[item]
    want += world.user_ND[user] @ world.item_ND[item]
    assert said == pytest.approx(want, abs=1e-5)


def test_a_cosine_with_biases_is_their_sum(tmp_path: Path) -> None:
    world = dataclasses.replace(rating_world(), model={"similarity": "cosine"})
    assert world.item_bias is not None
    art = exported(world, tmp_path)
    said = Vectors.of(art, "users").load()[4] @ Vectors.of(art, "items").load()[2]
    one, other = world.user_ND[4], world.item_ND[2]
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    assert said == pytest.approx(cosine + world.item_bias[2], abs=1e-6)


def test_the_spec_says_what_the_vectors_were_fitted_to(tmp_path: Path) -> None:
    assert spec_of(exported(clusters(), tmp_path / "a")).fitted == ("train",)
    world = dataclasses.replace(clusters(), model={"refit": [0.5, 0.4]})
    assert spec_of(exported(world, tmp_path / "b")).fitted == ("train", "valid")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_stops_the_stage(tmp_path: Path, bad: float) -> None:
    world = clusters(users=9, items=7)
    world.item_ND[5, 2] = bad
    run = world.store(tmp_path)
    with pytest.raises(NotFiniteError, match=r'that of "i5" \(row 5\)'):
        rebuilt(run)
    assert run.manifest("export") is None


def test_a_bias_that_is_not_finite_stops_the_stage(tmp_path: Path) -> None:
    world = rating_world()
    assert world.user_bias is not None
    world.user_bias[8] = np.nan
    with pytest.raises(NotFiniteError, match='"u8"'):
        rebuilt(world.store(tmp_path))


def test_a_flipped_byte_of_a_table_is_found(tmp_path: Path) -> None:
    run = clusters().store(tmp_path)
    path = run.artifact("train").storage.local_path("items/part-00002.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError, match="part-00002"):
        rebuilt(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 8}, "the model has 8 users, the vocabulary 9"),
        ({"dim": 4}, r"tensor 'weight' is not float32 \[3, 4\]"),
        ({"bias": True}, r"tensor 'bias' is not float32 \[3, 1\]"),
    ],
)
def test_a_model_that_does_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    world = dataclasses.replace(clusters(users=9, items=7), model=change)
    with pytest.raises(ContractError, match=message):
        exported(world, tmp_path)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(users=st.integers(1, 30), partitions=st.integers(1, 9), size=st.integers(1, 12))
def test_any_partitions_and_ranges_give_the_same_vectors(
    users: int, partitions: int, size: int
) -> None:
    world = dataclasses.replace(clusters(users=users, items=5), model={"similarity": "dot"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_ranges, "FILES", files_of(size))
        root = f"memory://export-{users}-{partitions}-{size}"
        run = world.store(root, run={"partitions": partitions})
        art = rebuilt(run)
        table = Vectors.of(art, "users")
        assert np.array_equal(table.load(), world.user_ND)
        rows = np.array([users - 1, 0, users // 2])
        assert np.array_equal(table.gather(rows), world.user_ND[rows])
        assert table.vocabulary.ids(rows) == [f"u{r}" for r in rows]
        assert table.vocabulary.row_of(f"u{users - 1}") == users - 1
        assert len(art.files("users")) == -(-users // size)
        assert np.array_equal(np.load(art.open("users.npy"), allow_pickle=False), world.user_ND)


def test_a_vocabulary_of_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_ranges, "FILES", files_of(2))
    world = dataclasses.replace(clusters(users=9, items=7), vocab_rows=4)
    art = exported(world, tmp_path)
    assert art.read_tables("users")["id"].to_pylist() == world.users
    assert art.read_tables("items")["id"].to_pylist() == world.items


def test_a_vocabulary_out_of_order(tmp_path: Path) -> None:
    world = clusters(users=9, items=7)
    run = world.store(tmp_path)
    path = run.artifact("vocab").storage.local_path("items/part-00000.parquet")
    table = pa.parquet.read_table(path)
    pa.parquet.write_table(table.take([1, 0, 2, 3, 4, 5, 6]), path)
    reseal(run.artifact("vocab"), "items/part-00000.parquet")
    with pytest.raises(ContractError, match="rows are not dense and in order"):
        rebuilt(run)


def test_npy_has_its_ids_beside_it(tmp_path: Path) -> None:
    art = exported(clusters(users=9, items=7), tmp_path)
    matrix = np.load(art.storage.local_path("items.npy"), mmap_mode="r", allow_pickle=False)
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix, Vectors.of(art, "items").load())
    ids = art.read_table("items.ids.parquet")
    assert ids["row"].to_pylist() == list(range(7))
    assert ids["id"].to_pylist() == [f"i{i}" for i in range(7)]


def test_npy_can_be_left_out(tmp_path: Path) -> None:
    art = exported(clusters(), tmp_path, export={"npy": False})
    assert not art.has("items.npy")
    assert not art.has("items.ids.parquet")


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (exported(clusters(), tmp_path / name) for name in "ab")
    assert first.manifest.content == second.manifest.content
    assert list(first.verify()) == []


def test_ids_of_any_content(tmp_path: Path) -> None:
    users = ["", 'a"b', "tab\there", "новый", "line\nbreak", "x" * 1000, " spaced ", "0", "00"]
    world = dataclasses.replace(clusters(users=9, items=7), users=users)
    table = Vectors.of(exported(world, tmp_path), "users")
    assert table.vocabulary.ids(np.arange(9)) == users
    assert [table.vocabulary.row_of(user) for user in users] == list(range(9))


def test_an_unknown_id_is_named_with_some_alike(tmp_path: Path) -> None:
    users = ["anna", "anton", "bruno", "Annika", "e", "f", "g", "h", "i"]
    world = dataclasses.replace(clusters(users=9, items=7), users=users)
    table = Vectors.of(exported(world, tmp_path), "users")
    with pytest.raises(InputError, match=r'no user "annna" among 9\. Did you mean "anna"'):
        table.vocabulary.row_of("annna")
    with pytest.raises(InputError, match="Give the user's id as the log has it"):
        table.vocabulary.row_of("zzz")


def lists_of(column: Any) -> np.ndarray[Any, Any]:
    return np.array([np.asarray(v, np.float32) for v in column])


@pytest.mark.parametrize("reader", ["pandas", "polars", "duckdb", "pyarrow"])
def test_other_tools_read_the_parquet(tmp_path: Path, reader: str) -> None:
    world = dataclasses.replace(clusters(users=9, items=7), model={"similarity": "dot"})
    art = exported(world, tmp_path)
    path = str(art.storage.local_path("items/part-00000.parquet"))
    match reader:
        case "pandas":
            import pandas as pd

            frame = pd.read_parquet(path)
            ids, vectors = list(frame["id"]), lists_of(frame["vector"])
        case "polars":
            import polars as pl

            table = pl.read_parquet(path)
            assert table.schema["vector"] == pl.Array(pl.Float32, 8)
            ids, vectors = table["id"].to_list(), table["vector"].to_numpy()
        case "duckdb":
            import duckdb

            found = duckdb.sql(f"select id, vector from '{path}' order by row").fetchall()
            ids, vectors = [f[0] for f in found], lists_of(f[1] for f in found)
        case _:
            arrow = pa.parquet.read_table(path)
            ids, vectors = arrow["id"].to_pylist(), lists_of(arrow["vector"].to_pylist())
    assert ids == world.items
    assert np.array_equal(vectors, world.item_ND)


SPARK = """
import json, sys
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", False).getOrCreate()
rows = spark.read.parquet(sys.argv[1]).orderBy("row").collect()
print(json.dumps([[row["id"], row["vector"]] for row in rows]))
spark.stop()
"""


@pytest.mark.exhaustive
@pytest.mark.spark
def test_spark_reads_the_parquet(tmp_path: Path) -> None:
    world = dataclasses.replace(clusters(users=9, items=7), model={"similarity": "dot"})
    path = str(exported(world, tmp_path).storage.local_path("items/part-00000.parquet"))
    answer = subprocess.run(
        [sys.executable, "-c", SPARK, path], capture_output=True, text=True, check=True
    )
    found = json.loads(answer.stdout.strip().splitlines()[-1])
    assert [row[0] for row in found] == world.items
    assert np.array_equal(lists_of(row[1] for row in found), world.item_ND)
