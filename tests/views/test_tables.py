"""Trained tables: rows by range, from local and remote roots, and files that are refused."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from embedmill.pipeline.errors import ContractError, CorruptArtifactError
from embedmill.pipeline.views.tables import check_tensors, open_table
from embedmill.pipeline.views.train import Training
from tests.support.runs import StoredRun, clusters

BIAS = np.arange(9, dtype=np.float32)


def world() -> StoredRun:
    return dataclasses.replace(
        clusters(users=9, items=7), user_bias=BIAS, item_bias=BIAS[:7], model={"similarity": "dot"}
    )


@pytest.mark.parametrize("partitions", [1, 4, 12])
@pytest.mark.parametrize("remote", [False, True])
def test_rows_of_any_range(tmp_path: Path, partitions: int, remote: bool) -> None:
    planted = world()
    root = f"memory://views-tables-{partitions}" if remote else tmp_path
    run = planted.store(root, run={"partitions": partitions})
    table = open_table(run.artifact("train"), "users", 9)
    for first, last in ((0, 9), (0, 1), (2, 7), (8, 9), (4, 4)):
        weight_ND = table.read("weight", first, last)
        assert np.array_equal(weight_ND, planted.user_ND[first:last])
        assert table.read("bias", first, last).shape == (last - first, 1)
        assert np.array_equal(table.read("bias", first, last)[:, 0], BIAS[first:last])


def test_a_remote_file_that_was_changed_is_found() -> None:
    run = world().store("memory://views-tables-changed", run={"partitions": 2})
    train = run.artifact("train")
    path = train.files("items")[1].path
    train.storage.write(path, train.storage.read(path)[:-1] + b"!")
    with pytest.raises(CorruptArtifactError, match="part-00001"):
        open_table(train, "items", 7)


def test_the_model_says_what_it_is(tmp_path: Path) -> None:
    model = Training(world().store(tmp_path).artifact("train")).model
    assert (model.similarity, model.dim, model.bias, model.users) == ("dot", 8, True, 9)


GOOD = safetensors.numpy.save({"weight": np.zeros((3, 2), np.float32)})


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 64, GOOD[:-1], GOOD + b"more"])
def test_what_is_no_table_file(data: bytes) -> None:
    with pytest.raises(ContractError, match="not a safetensors file"):
        check_tensors(io.BytesIO(data), 3, {"weight": 2}, "x")


@pytest.mark.parametrize(
    "tensor", [np.zeros((2, 2), np.float32), np.zeros((3, 3), np.float32), np.zeros((3, 2))]
)
def test_a_tensor_of_another_shape_or_type(tensor: np.ndarray) -> None:
    raw = io.BytesIO(safetensors.numpy.save({"weight": tensor}))
    with pytest.raises(ContractError, match=r"tensor 'weight' is not float32 \[3, 2\]"):
        check_tensors(raw, 3, {"weight": 2}, "x")


def test_a_tensor_that_is_missing() -> None:
    check_tensors(io.BytesIO(GOOD), 3, {"weight": 2}, "x")
    with pytest.raises(ContractError, match=r"tensor 'bias' is not float32 \[3, 1\]"):
        check_tensors(io.BytesIO(GOOD), 3, {"weight": 2, "bias": 1}, "x")
