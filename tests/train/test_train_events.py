"""What training holds of the events: small, and the same as a plain reading would give."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data import epoch_order, train_events
from embedmill.pipeline.train.data.epoch_order import ComputedOrder, EpochOrder, permuted
from embedmill.pipeline.train.data.sample_weights import normalized_weights
from embedmill.pipeline.train.data.train_events import Events, read_events
from embedmill.pipeline.train.plan import Layout, StepPlan, generator
from embedmill.pipeline.train.tables.embedding import draw_normal
from embedmill.pipeline.train.validation import choose_validation
from embedmill.pipeline.views.shards import Shards
from tests.support.artifacts import arrays_of, reseal
from tests.support.runs import store
from tests.support.worlds import config

Pairs = list[tuple[int, int, float]]


def written(root: Path, train: Pairs, valid: Pairs) -> Run:
    splits = {"train": arrays_of(train), "valid": arrays_of(valid), "test": arrays_of([])}
    return store(Run(config(root, "log.tsv")), 40, 30, splits)


def drawn_pairs(count: int, seed: int) -> Pairs:
    draw = random.Random(seed)
    return [(draw.randrange(40), draw.randrange(30), 1.0) for _ in range(count)]


def test_weights_that_are_alike_take_no_room(tmp_path: Path) -> None:
    run = written(tmp_path, drawn_pairs(200, 1), drawn_pairs(20, 2))
    events = read_events(Shards(run.artifact("shards")), ("train", "valid"), Layout(4), (40, 30))
    assert (events.user_E.dtype, events.item_E.dtype) == (torch.int32, torch.int32)
    assert events.weight_E.stride(0) == 0
    assert events.weight_E[torch.tensor([0, 219])].tolist() == [1.0, 1.0]
    assert sum(events.sizes) == len(events) == 220
    wide = read_events(Shards(run.artifact("shards")), ("train",), Layout(4), (2**31 + 1, 30))
    assert wide.user_E.dtype == torch.int64


def test_every_weight_is_kept_where_one_differs(tmp_path: Path) -> None:
    train = [(u, i, 2.5 if (u, i) == (7, 3) else 1.0) for u in range(40) for i in range(5)]
    run = written(tmp_path, train, [(0, 29, 4.0)])
    events = read_events(
        Shards(run.artifact("shards")), ("train", "valid"), Layout(4, 2, 1), (40, 30)
    )
    got = sorted(
        zip(events.user_E.tolist(), events.item_E.tolist(), events.weight_E.tolist(), strict=True)
    )
    assert got == sorted(e for e in train if e[0] % 4 in (1, 3))
    first = read_events(
        Shards(run.artifact("shards")), ("train", "valid"), Layout(4, 2, 0), (40, 30)
    )
    assert (0, 29, 4.0) in set(
        zip(first.user_E.tolist(), first.item_E.tolist(), first.weight_E.tolist(), strict=True)
    )


def test_a_file_with_other_rows_than_its_manifest_says(tmp_path: Path) -> None:
    run, other = (
        written(tmp_path / name, drawn_pairs(count, 1), [])
        for name, count in (("a", 90), ("b", 80))
    )
    path = "train/part-00002.parquet"
    run.storage.at("shards").write(path, other.storage.at("shards").read(path))
    reseal(run.artifact("shards"), path)
    with pytest.raises(ContractError, match=r"part-00002.*rows, the manifest says"):
        read_events(Shards(run.artifact("shards")), ("train",), Layout(4), (40, 30))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 12), st.integers(1, 3))
def test_an_epoch_is_the_slices_of_each_partition_s_shuffle(
    sizes: list[int], batch: int, world: int
) -> None:
    plan, orders = StepPlan(tuple(sizes), batch), {}
    for partition, size in enumerate(sizes):
        source = generator(5, "epoch", 2, partition)
        orders[partition] = torch.randperm(size, generator=source).tolist()
    for rank in range(world):
        layout = Layout(len(sizes), world, rank)
        own = tuple(sizes[p] for p in layout.owned)
        nothing = torch.zeros(sum(own), dtype=torch.int32)
        events = Events(nothing, nothing, nothing, own)
        epoch = EpochOrder.shuffled(events, plan, layout, seed=5, epoch=2)
        for step in range(plan.steps):
            expected, start = [], 0
            for partition in layout.owned:
                first, last = plan.span(step, partition)
                expected += [start + at for at in orders[partition][first:last]]
                start += sizes[partition]
            assert epoch.batch(step).tolist() == expected


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 30), st.integers(1, 3),
       st.integers(1, 60))  # fmt: skip
def test_a_computed_order_has_every_event_once_in_the_same_steps_for_any_workers(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], batch: int, world: int, window: int
) -> None:
    monkeypatch.setattr(epoch_order, "_WINDOW_EVENTS", window)
    monkeypatch.setattr(epoch_order, "_BLOCK_EVENTS", 3)
    plan, steps = StepPlan(tuple(sizes), batch), dict[int, set[tuple[int, int]]]()
    for workers in (1, world):
        taken = list[tuple[int, int]]()
        for rank in range(workers):
            layout = Layout(len(sizes), workers, rank)
            own = tuple(sizes[p] for p in layout.owned)
            names = [(p, at) for p in layout.owned for at in range(sizes[p])]
            nothing = torch.zeros(sum(own), dtype=torch.int32)
            events = Events(nothing, nothing, nothing, own)
            epoch = ComputedOrder.of(events, plan, layout, seed=5, epoch=2)
            for step in reversed(range(plan.steps)):  # from any step on
                batch_names = [names[at] for at in epoch.batch(step).tolist()]
                assert [p for p, _ in batch_names] == sorted(p for p, _ in batch_names)
                if workers == 1:
                    steps[step] = set(batch_names)
                assert set(batch_names) <= steps[step]
                taken += batch_names
        assert sorted(taken) == [(p, at) for p, size in enumerate(sizes) for at in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 65_537])
def test_a_computed_permutation_looks_like_a_shuffle(size: int) -> None:
    at = np.arange(size, dtype=np.uint64)
    found, other = (permuted(at, np.full_like(at, size), np.full_like(at, key)) for key in (1, 2))
    assert np.array_equal(np.sort(found), at)
    if size >= 1000:
        assert (found == other).mean() < 0.01
        # Neighbours fall a third of the size apart, as two numbers drawn at random do.
        apart = np.abs(np.diff(found.astype(np.int64))).mean() / size
        assert abs(apart - 1 / 3) < 0.03
        assert abs(np.corrcoef(at.astype(float), found.astype(float))[0, 1]) < 0.1


def test_a_window_is_made_of_blocks_from_all_over_the_partition() -> None:
    size, events = 1 << 20, torch.zeros(1 << 20, dtype=torch.int32)
    own = Events(events, events, events, (size,))
    order = epoch_order.ComputedOrder.of(
        own, StepPlan((size,), 1 << 14), Layout(1), seed=1, epoch=0
    )
    order = dataclasses.replace(order, window=1 << 16)
    blocks = {int(at) >> 12 for step in range(4) for at in order.batch(step)}  # a window
    assert len(blocks) == 16
    assert max(blocks) - min(blocks) > 100
    first = order.batch(0)
    assert len({int(at) >> 12 for at in first}) == 16  # a step has events of all its blocks


def test_events_beyond_the_bound_are_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = written(tmp_path, drawn_pairs(400, 3), drawn_pairs(90, 4))
    shards, scratch = Shards(run.artifact("shards")), tmp_path / "scratch"
    kept = read_events(shards, ("train",), Layout(4), (40, 30), scratch)
    assert not scratch.exists()
    monkeypatch.setattr(train_events, "MOST_KEPT_BYTES", 100)
    mapped = read_events(shards, ("train",), Layout(4), (40, 30), scratch)
    assert list(scratch.iterdir()) == []  # it has no name, and is gone with the process
    for one, other in zip(
        (kept.user_E, kept.item_E, kept.weight_E), (mapped.user_E, mapped.item_E, mapped.weight_E),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(one, other)


def test_a_permutation_of_more_numbers_than_32_bits_hold() -> None:
    size = 5_000_000_000
    at = np.arange(size - 1000, size, dtype=np.uint64)
    found = permuted(at, np.full_like(at, size), np.full_like(at, 7))
    assert len(np.unique(found)) == 1000
    assert found.max() < size
    assert (found > 2**32).any()


def test_validation_is_what_plain_sets_give(tmp_path: Path) -> None:
    train, valid = drawn_pairs(400, 3), drawn_pairs(90, 4)
    run, layout = written(tmp_path, train, valid), Layout(4)
    splits = [
        read_events(Shards(run.artifact("shards")), (split,), layout, (40, 30))
        for split in ("train", "valid")
    ]
    known = {(u, i) for u, i, _ in train}
    fresh = {(u, i) for u, i, _ in valid} - known
    every = choose_validation(*splits, layout, Group(), limit=1000, seed=1)
    assert every.user_B.tolist() == sorted({u for u, _ in fresh})
    few = choose_validation(*splits, layout, Group(), limit=10, seed=1)
    assert len(few.user_B) == few.users == 10
    for chosen in (every, few):
        ends = list(zip(chosen.user_B.tolist(), range(len(chosen.user_B)), strict=True))
        for lists, pairs in ((chosen.seen, known), (chosen.relevant, fresh)):
            for user, at in ends:
                rows = lists.rows[lists.indptr[at] : lists.indptr[at + 1]].tolist()
                assert rows == sorted(i for u, i in pairs if u == user)
        users = set(chosen.user_B.tolist())
        kept = sorted(
            zip(chosen.events.user_E.tolist(), chosen.events.item_E.tolist(), strict=True)
        )
        assert kept == sorted((u, i) for u, i, _ in valid if u in users)


def test_sample_weights_are_weights_to_a_power_over_their_mean() -> None:
    weight_E = torch.tensor([4.0, 1.0, 0.0, -3.0, 9.0])
    events = Events(torch.zeros(5), torch.zeros(5), weight_E, (2, 3))
    roots = normalized_weights(events, 0.5, Layout(2), Group())
    torch.testing.assert_close(roots.of(weight_E), torch.tensor([2.0, 1, 0, 0, 3]) / 1.2)
    once = normalized_weights(events, 0.0, Layout(2), Group())
    torch.testing.assert_close(once.of(weight_E), torch.tensor([1.0, 1, 0, 0, 1]) / 0.6)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_sample_weights_of_powers_beyond_float32(scale: float) -> None:
    weight_E = torch.tensor([2.0, 1.0, 0.0, -1.0]) * scale
    events = Events(torch.zeros(4), torch.zeros(4), weight_E, (2, 2))
    powers = normalized_weights(events, 4.0, Layout(2), Group())
    torch.testing.assert_close(powers.of(weight_E), torch.tensor([16.0, 1, 0, 0]) / 4.25)


@pytest.mark.parametrize("shape", [(5, 3), (1, 1), (47, 1), (48, 7), (1000, 3), (1007, 5)])
def test_blocks_draw_what_one_draw_gives(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedmill.pipeline.train.tables.embedding._BLOCK", 16)
    rows_ND = torch.empty(shape)
    draw_normal(rows_ND, generator(1, "x"), 0.5)
    assert torch.equal(rows_ND, torch.randn(shape, generator=generator(1, "x")) * 0.5)
