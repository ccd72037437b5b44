"""BPR and CCL, worked out by hand and by autograd."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from embedmill.pipeline.train.losses import LossInput, LossResult, LossSettings
from tests.support.losses import METHODS, SETTINGS


def two_wrong(objective: str, settings: LossSettings) -> LossResult:
    """User (3, 4), right item (1, 0), wrong ones (0, 2) twice and (-1, 0), and a hit."""
    items = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    step = LossInput(
        torch.tensor([[3.0, 4.0]]), items, torch.tensor([0]), torch.tensor([0]),
        torch.tensor([1, 2, 1, 0]), torch.zeros(4), torch.ones(1), torch.ones(1), 1,
    )  # fmt: skip
    return METHODS[objective].loss(step, settings)


def test_bpr_by_hand() -> None:
    # Scores 3 for the right one, 8 twice and -3: differences -5, -5, 6; the hit makes no pair.
    result = two_wrong("bpr", LossSettings())
    right, wrong = math.log1p(math.exp(-6)), math.log1p(math.exp(5))
    assert float(result.loss) == pytest.approx((2 * wrong + right) / 4, rel=1e-6)
    # s(-x) of each difference, times the difference of the items' vectors.
    far, near = 2 / (1 + math.exp(-5)) / 4, 1 / (1 + math.exp(6)) / 4
    expected = [far * (0 - 1) + near * (-1 - 1), far * (2 - 0)]
    assert result.user_UD[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert result.item_VD[1].tolist() == pytest.approx([3 * far, 4 * far], rel=1e-5)


def test_ccl_by_hand() -> None:
    # Cosines .6 for the right one, .8 twice and -.6: two are above .5, by .3.
    result = two_wrong("ccl", LossSettings(margin=0.5, negative_weight=10.0, similarity="cosine"))
    assert float(result.loss) == pytest.approx(0.4 + 10 * (0.3 + 0.3) / 4, rel=1e-6)
    # By the unit user (.6, .8): -(1, 0) + 5 (0, 1), less what lies along it, over its length 5.
    along = -0.6 + 5 * 0.8
    expected = [(-1 - along * 0.6) / 5, (5 - along * 0.8) / 5]
    assert result.user_UD[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert not result.item_VD[2].any()  # below the margin


def plain(name: str, settings: LossSettings, step: LossInput) -> Tensor:
    """Both losses as their papers have them, event by event, for autograd."""
    end = step.user_UD.shape[1] - int(settings.biased)
    total = torch.zeros((), dtype=torch.float64)
    for user, positive, weight in zip(step.user_B, step.positive_B, step.weight_B, strict=True):
        one, rows = step.user_UD[user, :end], step.item_VD[:, :end]
        if settings.similarity == "cosine":
            one, rows = one / one.norm(), rows / rows.norm(dim=1, keepdim=True)
        score_V = rows @ one + (step.item_VD[:, end] if settings.biased else 0)
        loss = (1 - score_V[positive]) if name == "ccl" else torch.zeros(())
        for negative in step.negative_K[step.negative_K != positive].tolist():
            over = score_V[negative] - settings.margin
            pair = (score_V[positive] - score_V[negative]) / settings.temperature
            part = settings.negative_weight * over.clamp(min=0)
            part = part if name == "ccl" else -torch.nn.functional.logsigmoid(pair)
            loss = loss + part / len(step.negative_K)
        total = total + loss * weight / step.size
    return total


@pytest.mark.parametrize("case", [name for name in SETTINGS if name[:3] in ("bpr", "ccl")])
def test_losses_against_negatives_are_those_of_autograd(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several blocks, with negatives drawn twice and hits."""
    monkeypatch.setattr("embedmill.pipeline.train.losses.batch_blocks._SCORES", 1)
    name, settings = SETTINGS[case]
    settings = replace(settings, l2=0.0)
    source = torch.Generator().manual_seed(3)
    drawn = {"generator": source, "dtype": torch.float64}
    leaves = [torch.randn(*s, **drawn, requires_grad=True) for s in ((9, 5), (40, 5))]
    step = LossInput(
        leaves[0], leaves[1], torch.randint(9, (80,), generator=source),
        torch.randint(40, (80,), generator=source), torch.randint(40, (12,), generator=source),
        torch.zeros(12), torch.rand(80, **drawn), torch.zeros(80), 100,
    )  # fmt: skip
    loss = plain(name, settings, step)
    loss.backward()
    still = replace(step, user_UD=leaves[0].detach(), item_VD=leaves[1].detach())
    result = METHODS[name].loss(still, settings)
    torch.testing.assert_close(result.loss, loss.detach())
    torch.testing.assert_close(result.user_UD, leaves[0].grad)
    torch.testing.assert_close(result.item_VD, leaves[1].grad)
