from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.report.charts.axes import log_ticks, ticks


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.13, 0.89, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (5, 5, [2, 4, 6, 8]),
        (0, 0, [-0.5, -0.25, 0, 0.25, 0.5]),
        (0.9441, 0.9994, [0.94, 0.96, 0.98, 1]),
    ],
)
def test_ticks(low: float, high: float, want: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(want)


@given(st.floats(-1e12, 1e12), st.floats(0, 1e12), st.integers(2, 9))
def test_ticks_cover_what_they_are_asked_for(low: float, extent: float, most: int) -> None:
    found = ticks(low, low + extent, most)
    slack = 1e-6 * max(abs(low), extent, 1)
    assert found[0] <= low + slack
    assert found[-1] >= low + extent - slack
    assert 2 <= len(found) <= 2 * most + 2


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (1, 1, [1, 2]),
        (1, 9, [1, 2, 5, 10]),
        (12, 40, [10, 20, 50]),
        (0.001, 1, [0.001, 0.01, 0.1, 1]),
        (1, 10**14, [1, 10**2, 10**4, 10**6, 10**8, 10**10, 10**12, 10**14]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, want: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(want)


@given(st.floats(1e-9, 1e9), st.floats(1, 1e12))
def test_ticks_of_a_logarithmic_axis_cover_what_is_shown(low: float, times: float) -> None:
    found = log_ticks(low, low * times)
    assert found[0] <= low * (1 + 1e-6)
    assert found[-1] >= low * times * (1 - 1e-6)
    assert 2 <= len(found) <= 10
    assert all(math.isfinite(v) and v > 0 for v in found)
    assert found == sorted(set(found))
