from __future__ import annotations

from pathlib import Path

from embedmill.pipeline.report.collect.item_biases import EXTREMES, extreme_biases
from embedmill.pipeline.report.collect.item_vectors import open_items
from tests.support.report_world import ReportWorld


def test_extremes_rank_items_with_enough_events_by_bias(tmp_path: Path) -> None:
    world = ReportWorld(items=60, rating=True)
    found = extreme_biases(open_items(world.write(tmp_path)))
    assert found is not None
    enough = [i for i in range(60) if world.count(i) >= found.least_count]
    assert found.items == len(enough) >= 2 * EXTREMES
    # The bias of the world rises with the row.
    assert [one.row for one in found.best] == enough[::-1][:EXTREMES]
    assert [one.row for one in found.worst] == enough[:EXTREMES]


def test_extremes_of_few_items_share_none(tmp_path: Path) -> None:
    found = extreme_biases(open_items(ReportWorld(items=5, rating=True).write(tmp_path)))
    assert found is not None
    assert [one.row for one in found.best] == [4, 3]
    assert [one.row for one in found.worst] == [0, 1]


def test_models_without_biases_have_no_extremes(tmp_path: Path) -> None:
    assert extreme_biases(open_items(ReportWorld().write(tmp_path))) is None


def test_the_bias_of_a_softmax_is_no_judgement(tmp_path: Path) -> None:
    """It follows how frequent an item is: neither best nor worst."""
    assert extreme_biases(open_items(ReportWorld(softmax_bias=True).write(tmp_path))) is None
