"""iALS against its paper's formulas: by hand, by dense normal equations, by whole sweeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from embedmill.pipeline.config import IalsConfig
from embedmill.pipeline.train import als
from embedmill.pipeline.train.als.positives import Slice
from embedmill.pipeline.train.als.solve import Basis, Batch, solve
from embedmill.pipeline.train.als.spectral_start import set_spectral_factors
from embedmill.pipeline.train.als.unobserved_weight import with_unobserved_weight
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.sample_weights import SampleWeights
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.graph.event_graph import EventGraph
from embedmill.pipeline.train.plan import Layout
from embedmill.pipeline.train.tables.embedding import ShardedEmbedding

UNOBSERVED = 0.3


def some(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def solved(
    rows: Tensor, others: Tensor, weights: Tensor, l2: Tensor, *, block: int, steps: int
) -> tuple[Tensor, Tensor]:
    """Rows [R, D] and their losses, for confidences `weights` [R, others]; 0 is no pair."""
    gram = (others.T @ others).double()
    basis = Basis.of(gram, UNOBSERVED, block)
    rotated = (others @ basis.rotation_DD).expand(len(rows), -1, -1).contiguous()
    found, loss = solve(Batch(rows @ basis.rotation_DD, l2, rotated, weights), basis, steps)
    return found @ basis.rotation_DD.T, loss


def exact(others: Tensor, weights: Tensor, l2: Tensor) -> Tensor:
    """The normal equations of every row, in full (Hu, Koren and Volinsky 2008, equation 4)."""
    others, weights, l2 = others.double(), weights.double(), l2.double()
    rows = []
    for weight, own in zip(weights, l2, strict=True):
        left = others.T @ (weight[:, None] * others) + UNOBSERVED * others.T @ others
        left += own * torch.eye(others.shape[1])
        rows.append(torch.linalg.solve(left, others.T @ weight))
    return torch.stack(rows).float()


def objective(row: Tensor, others: Tensor, weight: Tensor, l2: Tensor) -> float:
    scores = others.double() @ row.double()
    return float(
        (weight * (1 - scores).square()).sum()
        + UNOBSERVED * scores.square().sum()
        + l2 * row.double().square().sum()
    )


def pairs_at(seed: int, rows: int, others: int, share: float) -> Tensor:
    there = torch.rand(rows, others, generator=torch.Generator().manual_seed(seed)) < share
    return there * (0.5 + some(seed + 1, rows, others).abs())


def test_one_number_by_hand() -> None:
    # h = 2, G = 4: w = c h / (c h^2 + a G + l2) = 1.5 * 2 / (6 + 1.2 + 0.8) = 0.375
    found, loss = solved(
        torch.zeros(1, 1), torch.tensor([[2.0]]), torch.tensor([[1.5]]), torch.tensor([0.8]),
        block=0, steps=1,
    )  # fmt: skip
    assert found.item() == pytest.approx(0.375)
    # c (1 - .75)^2 + a .75^2 + l2 .375^2
    assert loss.item() == pytest.approx(1.5 * 0.0625 + 0.3 * 0.5625 + 0.8 * 0.140625)


def test_steps_beyond_the_pairs_solve_exactly() -> None:
    others, l2 = some(1, 9, 20), torch.linspace(0.1, 2, 6)
    weights = torch.zeros(6, 9)
    weights[:, :4] = 1 + some(2, 6, 4).abs()
    found, _ = solved(some(3, 6, 20), others, weights, l2, block=0, steps=5)
    torch.testing.assert_close(found, exact(others, weights, l2), rtol=1e-3, atol=1e-4)
    short, _ = solved(some(3, 6, 20), others, weights, l2, block=0, steps=1)
    assert not torch.allclose(short, found, rtol=1e-2)


@pytest.mark.parametrize("block", [3, 4, 8])
def test_blocks_in_turn_come_to_the_same_rows(block: int) -> None:
    others, weights = some(1, 30, 8), pairs_at(5, 7, 30, 0.4)
    l2, rows, before = torch.full((7,), 0.5), some(9, 7, 8), torch.inf
    for _ in range(60):
        rows, loss = solved(rows, others, weights, l2, block=block, steps=9)
        assert float(loss.sum()) <= before + 1e-4
        before = float(loss.sum())
    torch.testing.assert_close(rows, exact(others, weights, l2), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("block", [0, 3])
def test_the_loss_is_that_of_the_rows(block: int) -> None:
    others, weights, l2 = some(1, 12, 5), pairs_at(3, 4, 12, 0.5), torch.full((4,), 0.7)
    rows, loss = solved(some(2, 4, 5), others, weights, l2, block=block, steps=2)
    for row, weight, one in zip(rows, weights, loss.tolist(), strict=True):
        assert one == pytest.approx(objective(row, others, weight, l2[0]), rel=1e-4)


EVENTS = [(0, 0, 1.0), (0, 1, 2.0), (1, 1, 1.0), (0, 1, 3.0), (2, 3, 0.5), (3, 0, 1.0),
          (3, 1, 1.0), (3, 2, 0.0), (4, 4, 2.0), (5, 0, 1.0), (5, 4, 1.0)]  # fmt: skip
IALS: dict[str, Any] = {
    "regularization": 0.05, "regularization_power": 0.5, "unobserved_weight": UNOBSERVED,
    "cg_steps": 12,
}  # fmt: skip


def test_a_sweep_is_that_of_the_paper() -> None:
    """Users, then items, each from the closed form; a pair's events add up, weight 0 is none."""
    layout, group, ials = Layout(2), Group(), IalsConfig(**IALS)
    first = {"users": some(1, 7, 3), "items": some(2, 5, 3)}
    order = {n: torch.cat([torch.arange(p, len(t), 2) for p in (0, 1)]) for n, t in first.items()}
    users, items = (
        ShardedEmbedding(t[order[n]].clone(), len(t), layout, group) for n, t in first.items()
    )
    user_E, item_E, weight_E = (torch.tensor(column) for column in zip(*EVENTS, strict=True))
    plan = als.SweepPlan((6, 5), dim=3)
    events = Events(user_E, item_E, weight_E, plan.sizes)
    sweep = als.prepare_sweep(users, items, events, weight_E, ials, plan)
    weights = torch.zeros(7, 5)
    for user, item, weight in EVENTS:
        weights[user, item] += weight

    def l2(pairs: Tensor, others: int) -> Tensor:
        return 0.05 * ((pairs > 0).sum(1) + UNOBSERVED * others) ** 0.5

    user_ND = exact(first["items"], weights, l2(weights, 5))
    item_ND = exact(user_ND, weights.T, l2(weights.T, 7))
    losses = [sweep.take(step) for step in range(plan.steps)]
    got = [t.weight.detach()[t.local_index(torch.arange(t.rows))] for t in (users, items)]
    torch.testing.assert_close(got[0], user_ND, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(got[1], item_ND, rtol=1e-3, atol=1e-4)
    assert not got[0][6].any()  # a user without events
    error = sum(objective(u, item_ND, w, torch.tensor(0.0)) for u, w in zip(user_ND, weights))  # noqa: B905
    penalty = (l2(weights, 5) * user_ND.square().sum(1)).sum()
    penalty += (l2(weights.T, 7) * item_ND.square().sum(1)).sum()
    assert losses[1] == pytest.approx((error + float(penalty)) / len(EVENTS), rel=1e-4)
    assert losses[1] < losses[0]


def test_batches_hold_every_row_with_pairs_once() -> None:
    count = torch.tensor([9, 5, 5, 2, 1, 1, 0, 0])
    start = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
    part = Slice(torch.arange(8), start, torch.arange(9), torch.arange(23) % 9, torch.ones(23))
    runs = list(part.batches(floats=40, width=4))
    assert [(first, end) for first, end, _ in runs] == [(0, 1), (1, 3), (3, 6)]
    index, weight = part.padded(*runs[2])
    assert index.shape == weight.shape == (3, 2)
    assert weight.tolist() == [[1, 1], [1, 0], [1, 0]]
    assert index[0].tolist() == [19 % 9, 20 % 9]


def test_a_plan_cuts_what_is_too_large_at_once() -> None:
    assert als.SweepPlan((10, 20), dim=8).steps == 2
    plan = als.SweepPlan((1 << 22, (1 << 22) + 1), dim=64)
    assert plan.steps == 6
    sizes = [plan.batch_sizes(step) for step in range(plan.steps)]
    assert [sum(parts) for parts in zip(*sizes, strict=True)] == list(plan.sizes)


def test_the_weight_of_unobserved_pairs_is_8_times_the_density_unless_given() -> None:
    found = with_unobserved_weight(IalsConfig(), events=30, users=20, items=100)
    assert found.unobserved_weight == pytest.approx(8 * 30 / (20 * 100))
    assert with_unobserved_weight(IalsConfig(), 1000, 10, 100).unobserved_weight == 1.0
    assert with_unobserved_weight(IalsConfig(**IALS), 30, 20, 100) == IalsConfig(**IALS)


def test_spectral_start_is_in_the_scale_of_ials_and_saves_sweeps() -> None:
    """Four clusters: one sweep from the start has a lower loss than one from random values."""
    source, dim = torch.Generator().manual_seed(4), 6
    user_E = torch.arange(200).repeat_interleave(8)
    item_E = 10 * (user_E % 4) + torch.randint(10, (1600,), generator=source)
    events = Events(user_E.int(), item_E.int(), torch.ones(1600), (1600,))
    losses = []
    for spectral in (False, True):
        users, items = (
            ShardedEmbedding(0.1 * some(seed, rows, dim), rows, Layout(1), Group())
            for seed, rows in ((1, 200), (2, 40))
        )
        if spectral:
            graph = EventGraph.of(events, SampleWeights(0.0, 1.0), users, items, dim)
            set_spectral_factors(graph, seed=1, scale=0.1)
            user_ED, item_ED = users.weight.detach()[user_E], items.weight.detach()[item_E]
            assert 0.3 < float((user_ED * item_ED).sum(1).mean()) < 0.7
            lengths = [float(one.square().sum(1).mean()) for one in (user_ED, item_ED)]
            assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)
        plan = als.SweepPlan((1600,), dim=dim)
        sweep = als.prepare_sweep(users, items, events, events.weight_E, IalsConfig(), plan)
        losses.append([sweep.take(step) for step in range(2)][-1])
    assert losses[1] < 0.9 * losses[0]
