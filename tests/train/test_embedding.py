from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding, set_initial
from tests.support.ranks import run_ranks

ROWS, WIDTH, PARTITIONS = 23, 3, 5


def whole_table() -> torch.Tensor:
    return torch.arange(ROWS * WIDTH, dtype=torch.float32).reshape(ROWS, WIDTH).sin()


def sharded(rows: int, group: Group, whole: torch.Tensor) -> ShardedEmbedding:
    layout = Layout(PARTITIONS, group.world, group.rank)
    owned = [torch.arange(rows)[p::PARTITIONS] for p in layout.owned]
    return ShardedEmbedding(whole[torch.cat(owned)].clone(), rows, layout, group)


shapes = st.lists(st.integers(0, 3), max_size=3)


@settings(deadline=None)
@given(shapes, st.integers(1, 30), st.data())
def test_is_an_embedding_for_any_shape(shape: list[int], rows: int, data: st.DataObject) -> None:
    count = int(torch.tensor(shape).prod()) if shape else 1
    drawn = data.draw(st.lists(st.integers(0, rows - 1), min_size=count, max_size=count))
    index = torch.tensor(drawn, dtype=torch.int64).reshape(shape)
    whole = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(rows))
    table = sharded(rows, Group(), whole)
    reference = nn.Embedding.from_pretrained(whole.clone(), freeze=False)
    onehot = nn.functional.one_hot(index, rows).float() @ whole
    got, expected = table(index), reference(index)
    assert got.shape == (*shape, WIDTH)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(got, onehot)
    weight = torch.arange(got.numel(), dtype=torch.float32).reshape(got.shape)
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    by_row = torch.empty_like(whole)
    by_row[torch.cat([torch.arange(rows)[p::PARTITIONS] for p in range(PARTITIONS)])] = (
        table.weight.grad
    )
    torch.testing.assert_close(by_row, reference.weight.grad)


@pytest.mark.parametrize("index", [[-1], [ROWS], [0, ROWS + 5]])
def test_out_of_range(index: list[int]) -> None:
    with pytest.raises(IndexError, match=r"rows 0 to 22"):
        sharded(ROWS, Group(), whole_table())(torch.tensor(index))


def look_up() -> tuple[list[list[float]], list[list[float]], list[int]]:
    """Rank r asks for another index than its peers; its gradient is r + 1 everywhere."""
    group = Group.current()
    table = sharded(ROWS, group, whole_table())
    index = torch.tensor([[0, 7, 22], [7, 7, group.rank]]) if group.rank < 2 else torch.empty(0, 2)
    got = table(index.long())
    (got * (group.rank + 1)).sum().backward()
    owned = torch.cat([torch.arange(ROWS)[p::PARTITIONS] for p in table.layout.owned])
    assert table.weight.grad is not None
    return got.reshape(-1, WIDTH).tolist(), table.weight.grad.tolist(), owned.tolist()


def test_three_ranks_look_up_and_sum_gradients(tmp_path: Path) -> None:
    answers = run_ranks(look_up, 3, tmp_path)
    whole = whole_table()
    torch.testing.assert_close(torch.tensor(answers[0][0]), whole[[0, 7, 22, 7, 7, 0]])
    torch.testing.assert_close(torch.tensor(answers[1][0]), whole[[0, 7, 22, 7, 7, 1]])
    assert answers[2][0] == []
    summed = torch.zeros(ROWS, WIDTH)
    for _, gradient, owned in answers:
        summed[owned] = torch.tensor(gradient)
    expected = torch.zeros(ROWS)
    expected[[0, 1, 7, 22]] = torch.tensor([2.0 + 2, 2, 3 + 6, 1 + 2])
    torch.testing.assert_close(summed, expected[:, None].expand(-1, WIDTH))


LOOKUPS = ([[5, 0, 22], [], [1, 2]], [[22], [3, 9, 4], []], [[], [], [22, 0]])  # by rank


def bring() -> list[tuple[list[list[float]], dict[int, list[float]]]]:
    """By lookup: the vectors, and what rank r's gradients of r + 1 came to at their owners."""
    group = Group.current()
    table = sharded(ROWS, group, whole_table())
    owned = torch.cat([torch.arange(ROWS)[p::PARTITIONS] for p in table.layout.owned])
    lookups = [torch.tensor(rows, dtype=torch.int64) for rows in LOOKUPS[group.rank]]
    answers = []
    for route, rows_V in zip(table.route_lookups(lookups), lookups, strict=True):
        vectors_VD = table.read(route)
        local_G, summed_GD = table.sum_gradients(
            route, torch.full((len(rows_V), WIDTH), group.rank + 1.0)
        )
        sums = dict(zip(owned[local_G].tolist(), summed_GD.tolist(), strict=True))
        answers.append((vectors_VD.tolist(), sums))
    return answers


def test_several_lookups_are_routed_in_one_exchange(tmp_path: Path) -> None:
    answers, whole = run_ranks(bring, 3, tmp_path), whole_table()
    for lookup in range(3):
        expected: dict[int, float] = {}
        for rank, answer in enumerate(answers):
            requested = LOOKUPS[rank][lookup]
            assert answer[lookup][0] == whole[requested].tolist()
            for row in requested:
                expected[row] = expected.get(row, 0.0) + rank + 1
        summed: dict[int, list[float]] = {}
        for answer in answers:
            assert not summed.keys() & answer[lookup][1].keys(), "a row has one owner"
            summed |= answer[lookup][1]
        assert summed == {row: [value] * WIDTH for row, value in expected.items()}


def look_up_wrongly() -> str:
    group = Group.current()
    table = sharded(ROWS, group, whole_table())
    try:
        table(torch.tensor([ROWS if group.rank == 1 else 0]))
    except IndexError as error:
        return str(error)
    return ""


def test_a_bad_index_at_one_rank_is_an_error_at_all(tmp_path: Path) -> None:
    messages = run_ranks(look_up_wrongly, 2, tmp_path)
    assert all("rows 0 to 22" in text for text in messages), messages


def initial(table: str, layout: Layout) -> torch.Tensor:
    weight_LD = torch.empty(layout.local_rows(ROWS), WIDTH)
    set_initial(weight_LD, table, ROWS, layout, seed=3, scale=0.5)
    return weight_LD


def test_initial_rows_do_not_depend_on_the_world() -> None:
    one = initial("users", Layout(PARTITIONS))
    start, by_partition = 0, {}
    for p in range(PARTITIONS):
        size = len(range(p, ROWS, PARTITIONS))
        by_partition[p] = one[start : start + size]
        start += size
    for rank in range(2):
        layout = Layout(PARTITIONS, 2, rank)
        part = initial("users", layout)
        assert torch.equal(part, torch.cat([by_partition[p] for p in layout.owned]))
    assert not torch.equal(one, initial("items", Layout(PARTITIONS)))
    assert 0.3 < float(one.std()) < 0.7
