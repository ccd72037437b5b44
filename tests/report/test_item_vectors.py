from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline.report.collect import item_vectors
from embedmill.pipeline.report.collect.item_biases import extreme_biases
from embedmill.pipeline.report.collect.item_vectors import open_items
from embedmill.pipeline.report.collect.nearest_items import nearest_items
from tests.support.report_world import ReportWorld


def test_blocks_of_any_size_give_the_same_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = open_items(ReportWorld(rating=True).write(tmp_path))
    whole = nearest_items(items, ()), extreme_biases(items)
    monkeypatch.setattr(item_vectors, "_BLOCK_ROWS", 7)
    assert (nearest_items(items, ()), extreme_biases(items)) == whole


def test_only_vectors_of_the_most_frequent_items_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = open_items(ReportWorld().write(tmp_path))
    opened: list[str] = []
    real = type(items.vectors.export).batches

    def noting(self: Any, path: str, rows: int, columns: list[str]) -> Any:
        if "vector" in columns:
            opened.append(path)
        return real(self, path, rows, columns)

    monkeypatch.setattr(type(items.vectors.export), "batches", noting)
    assert items.most_frequent(10).row_N.tolist() == list(range(10))
    assert opened == ["items/part-00000.parquet"]


def test_the_most_frequent_come_first_whatever_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary that continues another is in no order of counts."""
    monkeypatch.setattr(ReportWorld, "count", lambda _self, i: 1 + i % 7)
    world = ReportWorld(title=lambda i: "Same" if i in (4, 6) else f"T{i}")
    items = open_items(world.write(tmp_path))
    assert items.most_frequent(9).row_N.tolist() == [6, 13, 20, 27, 34, 41, 48, 55, 5]
    assert nearest_items(items, ("same",)).items[0].row == 6
