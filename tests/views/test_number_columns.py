"""Columns of numbers as NumPy arrays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.views.number_columns import numbers

TYPES = [pa.int64(), pa.int32(), pa.uint8(), pa.float32(), pa.float64(), pa.bool_()]


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("chunks", [[], [[1, 0]], [[1], [0, 1]]], ids=["none", "one", "two"])
def test_all_chunks_of_a_column(kind: pa.DataType, chunks: list[list[int]]) -> None:
    column = pa.chunked_array([pa.array(one).cast(kind) for one in chunks], kind)
    found = numbers(column)
    assert found.dtype == kind.to_pandas_dtype()
    assert found.tolist() == [value for one in chunks for value in one]


def test_a_slice_of_an_array() -> None:
    assert numbers(pa.array([3, 5, 8])[1:]).tolist() == [5, 8]
    assert numbers(pa.array([True, False, False, True])[3:]).tolist() == [True]


def test_a_null_is_refused() -> None:
    with pytest.raises(ContractError, match="a column of numbers has nulls"):
        numbers(pa.array([1, None]))


def test_pandas_is_not_imported(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": np.arange(3)}), path)
    script = (
        "import sys, pyarrow.parquet as pq\n"
        "from embedmill.pipeline.views.number_columns import numbers\n"
        f"numbers(pq.ParquetFile({str(path)!r}).read(['a'])['a'])\n"
        "print('pandas' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
