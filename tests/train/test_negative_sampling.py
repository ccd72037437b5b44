"""Negative sampling, worked out by hand and by autograd."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from embedmill.pipeline.train.losses import LossInput, LossSettings
from tests.support.losses import METHODS


def pairs_step(negative_K: Tensor, scale: float = 1.0) -> LossInput:
    """A center (3, 4) with context 0, (1, 0); context 1 is (0, -.5)."""
    return LossInput(
        torch.tensor([[3.0, 4.0]]) * scale, torch.tensor([[1.0, 0.0], [0.0, -0.5]]),
        torch.tensor([0]), torch.tensor([0]), negative_K, torch.zeros(len(negative_K)),
        torch.ones(1), torch.ones(1), 1,
    )  # fmt: skip


def test_negative_sampling_by_hand() -> None:
    """Scores 3 and -2; the drawn context is drawn three times of four and weighs as two."""
    result = METHODS["item2vec"].loss(
        pairs_step(torch.tensor([1, 0, 1, 1])), LossSettings(per_pair=2.0)
    )
    right, drawn = 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(2))
    loss = -math.log(right) - 2 * 3 / 4 * math.log(1 - drawn)
    assert float(result.loss) == pytest.approx(loss)
    expected = [right - 1, 1.5 * drawn * -0.5]
    assert result.user_UD[0].tolist() == pytest.approx(expected)
    assert result.item_VD[0].tolist() == pytest.approx([3 * (right - 1), 4 * (right - 1)])
    assert result.item_VD[1].tolist() == pytest.approx([1.5 * drawn * 3, 1.5 * drawn * 4])


def test_shared_negatives_give_the_gradient_of_as_many_per_pair() -> None:
    """Five per pair, drawn with chances 1/2, 1/3, 1/6: their expectation, by autograd.

    A shared draw of six items in just these shares has that very gradient.
    """
    source = torch.Generator().manual_seed(3)
    center_BD = torch.randn(4, 3, generator=source).requires_grad_()
    context_VD = torch.randn(3, 3, generator=source).requires_grad_()
    positive_B = torch.tensor([0, 1, 2, 1])
    logits = center_BD @ context_VD.T
    right = torch.nn.functional.logsigmoid(logits.gather(1, positive_B[:, None])).sum()
    wrong = torch.nn.functional.logsigmoid(-logits) * torch.tensor([1 / 2, 1 / 3, 1 / 6])
    other = torch.arange(3) != positive_B[:, None]
    expected = -(right + 5 * (wrong * other).sum()) / 4
    expected.backward()  # type: ignore[no-untyped-call]
    step = LossInput(
        center_BD.detach(), context_VD.detach(), torch.arange(4), positive_B,
        torch.tensor([0, 0, 1, 0, 2, 1]), torch.zeros(6), torch.ones(4), torch.ones(4), 4,
    )  # fmt: skip
    result = METHODS["item2vec"].loss(step, LossSettings(per_pair=5.0))
    assert float(result.loss) == pytest.approx(float(expected.detach()))
    torch.testing.assert_close(result.user_UD, center_BD.grad)
    torch.testing.assert_close(result.item_VD, context_VD.grad)


def test_a_worker_without_pairs_in_a_step() -> None:
    none = torch.empty(0, dtype=torch.int64)
    step = replace(
        pairs_step(torch.tensor([1, 0])), user_UD=torch.empty(0, 2), user_B=none, positive_B=none,
        weight_B=torch.empty(0), target_B=torch.empty(0),
    )  # fmt: skip
    result = METHODS["item2vec"].loss(step, LossSettings(per_pair=5.0))
    assert float(result.loss) == 0
    assert result.user_UD.shape == (0, 2)
    assert not result.item_VD.any()


def test_negative_sampling_in_several_blocks() -> None:
    """More events than a block holds: the sum of the parts."""
    source = torch.Generator().manual_seed(4)
    size, drawn = 700, torch.randint(900, (3000,), generator=source)
    step = LossInput(
        torch.randn(50, 4, generator=source), torch.randn(900, 4, generator=source),
        torch.randint(50, (size,), generator=source), torch.randint(900, (size,), generator=source),
        drawn, torch.zeros(3000), torch.ones(size), torch.ones(size), size,
    )  # fmt: skip
    whole = METHODS["item2vec"].loss(step, LossSettings(per_pair=5.0))
    user_UD = torch.zeros_like(step.user_UD)
    for at in range(0, size, 64):
        part = slice(at, at + 64)
        cut = {k: getattr(step, k)[part] for k in ("user_B", "positive_B", "weight_B")}
        user_UD += (
            METHODS["item2vec"].loss(replace(step, **cut), LossSettings(per_pair=5.0)).user_UD
        )
    torch.testing.assert_close(whole.user_UD, user_UD, rtol=1e-4, atol=1e-6)
