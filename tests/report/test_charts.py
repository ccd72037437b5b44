from __future__ import annotations

from embedmill.pipeline.report.charts.line_charts import by_epoch


def test_a_curve_of_one_epoch_is_a_dot_and_of_none_is_nothing() -> None:
    assert "<circle" in by_epoch("Loss", [(1, 0.5)], None, "")
    assert by_epoch("Loss", [], None, "") == ""
