"""An index that is carried over: where every item is, and the same answers as a new one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.index import INDEXES
from embedmill.pipeline.index.incremental.base_layout import Layout, plan_layout
from embedmill.pipeline.index.incremental.incremental_index import IncrementalIndex
from embedmill.pipeline.index.kinds.flat import Flat
from embedmill.pipeline.index.searchable import Searchable

Floats = npt.NDArray[np.float32]


def draw_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_where_every_item_is() -> None:
    """Rows 0 to 5 were live; 1 is gone, 3 has another vector, 7 and 8 are new."""
    before_R = np.arange(6)
    same_R = np.array([True, False, True, False, True, True])
    found = plan_layout(np.array([0, 2, 3, 4, 5, 7, 8]), before_R, same_R, np.arange(6))
    assert found.position_S.tolist() == [0, -1, 1, -1, 3, 4]
    assert found.delta_M.tolist() == [2, 5, 6]
    assert (found.kept, found.changed, found.new, found.removed) == (4, 1, 2, 1)
    assert found.counters() == {
        "kept": 4, "changed": 1, "new": 2, "removed": 1, "indexed_before": 6,
        "base_slots": 6, "tombstones": 2, "in_base": 4, "in_delta": 3,
    }  # fmt: skip
    assert found.overhead == pytest.approx(5 / 7)


def test_the_third_night_keeps_the_base_of_the_first() -> None:
    """Row 3 is in the delta since last night and stays there; 7 has gone again; 1 is back."""
    before_R = np.array([0, 2, 3, 4, 5, 7, 8])
    same_R = np.array([True, True, True, True, True, False, True])
    base_P = np.array([0, -1, 2, -1, 4, 5])  # as the second night left it
    found = plan_layout(np.array([0, 1, 2, 3, 4, 5, 8]), before_R, same_R, base_P)
    assert found.position_S.tolist() == [0, -1, 2, -1, 4, 5]
    assert found.delta_M.tolist() == [1, 3, 6]
    assert (found.kept, found.changed, found.new, found.removed) == (6, 0, 1, 1)


def test_all_changed_and_nothing_left() -> None:
    rows = np.arange(4)
    found = plan_layout(rows, rows, np.zeros(4, bool), rows)
    assert found.tombstones == 4
    assert found.delta_M.tolist() == [0, 1, 2, 3]
    empty = plan_layout(np.empty(0, np.int64), rows, np.zeros(4, bool), rows)
    assert (empty.removed, empty.tombstones, len(empty.delta_M)) == (4, 4, 0)


def two_nights(
    seed: int, items: int = 400, dim: int = 8, gone_of_long: float = 0.8
) -> tuple[Floats, Floats, Layout]:
    """Vectors of the base by place and of the live items by position, and what is layout.

    A quarter of the items are long: queries that like them meet tombstones where most are gone.
    """
    draw = draw_of(seed)
    old_RD = draw.standard_normal((items, dim), np.float32)
    old_RD[: items // 4] = 4 * np.abs(old_RD[: items // 4])
    new_RD = np.concatenate((old_RD, draw.standard_normal((60, dim), np.float32)))
    changed = draw.choice(items, 30, replace=False)
    new_RD[changed] = draw.standard_normal((30, dim), np.float32)
    gone = draw.random(items) < np.where(np.arange(items) < items // 4, gone_of_long, 0.05)
    row_N = np.concatenate((np.flatnonzero(~gone), np.arange(items, items + 60)))
    same_R = ~gone
    same_R[changed] = False
    layout = plan_layout(row_N, np.arange(items), same_R, np.arange(items))
    return old_RD, new_RD[row_N], layout


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_exact_parts_answer_as_one_exact_index(seed: int, k: int) -> None:
    old_PD, item_ND, layout = two_nights(seed)
    incremental = IncrementalIndex(
        Flat().build(old_PD, {}, 0), Flat().build(item_ND[layout.delta_M], {}, 0), layout
    )
    query_BD = draw_of(seed + 100).standard_normal((30, 8), np.float32)
    query_BD[:10] = np.abs(query_BD[:10])
    expected, found = (
        Flat().build(item_ND, {}, 0).search(query_BD, k),
        incremental.search(query_BD, k),
    )
    assert np.array_equal(found[1], expected[1])
    assert np.allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
    live = found[1][found[1] >= 0].reshape(30, -1)
    assert all(len(set(row)) == min(k, len(item_ND)) for row in live.tolist())


@pytest.mark.parametrize("kind", INDEXES)
def test_every_kind_finds_as_much_as_when_built_anew(kind: str) -> None:
    old_PD, item_ND, layout = two_nights(1, items=2000, dim=16, gone_of_long=0.05)

    def built(vector_ND: Floats) -> object:
        index_kind = INDEXES[kind]
        return index_kind.build(
            vector_ND, index_kind.plan(*vector_ND.shape, IndexConfig(kind=kind)), seed=1
        )

    incremental = IncrementalIndex(
        built(old_PD), Flat().build(item_ND[layout.delta_M], {}, 0), layout
    )  # type: ignore[arg-type]
    query_BD = np.concatenate((draw_of(5).standard_normal((200, 16), np.float32), item_ND[:100]))
    best = np.argsort(-(query_BD @ item_ND.T), axis=1)[:, :10]

    def recall(index: Searchable) -> float:
        found = index.search(query_BD, 10)[1]
        return float(np.mean([len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]) / 10)

    assert recall(incremental) >= recall(built(item_ND)) - 0.005


def test_a_base_of_tombstones_and_no_delta() -> None:
    old_PD = np.eye(4, dtype=np.float32)
    rows = np.arange(4)
    dead = plan_layout(np.empty(0, np.int64), rows, np.zeros(4, bool), rows)
    scores, found = IncrementalIndex(Flat().build(old_PD, {}, 0), None, dead).search(old_PD[:2], 3)
    assert found.tolist() == [[-1] * 3] * 2
    assert np.isneginf(scores).all()
