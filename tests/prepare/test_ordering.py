from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedmill.pipeline.prepare.engine.ordering import order_by, order_by_pair

few, wide = st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1)
near = st.integers(0, 5).map(lambda n: 7 + 64 * n)  # rows of one partition


@given(st.lists(st.tuples(near | few, few | wide, few), max_size=30))
def test_order_is_that_of_all_keys(rows: list[tuple[int, int, int]]) -> None:
    keys = [np.array(column, np.int64) for column in zip(*rows, strict=True)] or [
        np.empty(0, np.int64)
    ] * 3
    for order in (order_by(*keys), order_by_pair(*keys)):
        assert [rows[at] for at in order.tolist()] == sorted(rows)


def test_a_pair_whose_ranges_fit_is_sorted_as_one_number() -> None:
    user = np.array([7 + 64 * 3, 7, 7 + 64 * 2**20, 7])
    time = np.array([2**42, 2**42, 0, 0])
    assert order_by_pair(user, time).tolist() == [3, 1, 0, 2]
