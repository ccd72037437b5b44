"""Every loss keeps the same promises."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from embedmill.pipeline.train.losses import LossInput
from tests.support.losses import METHODS, SETTINGS, a_step, lost, settled

cases = pytest.mark.parametrize("case", SETTINGS)


def rank_score(case: str, step: LossInput, item: int) -> Tensor:
    """Score of an item for user 0, as ranking and rating take it."""
    name, settings = SETTINGS[case]
    end = step.user_UD.shape[1] - int(settings.biased)
    user, one = step.user_UD[0, :end], step.item_VD[item, :end]
    if settings.similarity == "cosine" and name != "rating":
        user, one = user / user.norm(), one / one.norm()
    bias = step.item_VD[item, end] if settings.biased else torch.tensor(0.0)
    if name == "rating":
        bias = bias + step.user_UD[0, end]
    return user @ one + bias


def test_every_loss_is_tried() -> None:
    assert {name for name, _ in SETTINGS.values()} == set(METHODS)


@cases
def test_gradients_are_those_of_the_loss(case: str) -> None:
    step = a_step()
    floats = {k: v for k, v in vars(step).items() if torch.is_tensor(v) and v.is_floating_point()}
    doubled = replace(step, **{k: v.double() for k, v in floats.items()})
    result = lost(case, doubled)
    name, doubled, settings = settled(case, doubled)
    loss, small = METHODS[name].loss, 1e-6
    torch.testing.assert_close(result.loss, loss(doubled, settings).loss)
    for rows in ("user_UD", "item_VD"):
        numeric = torch.zeros_like(getattr(doubled, rows))
        for at in range(numeric.numel()):
            for sign in (1, -1):
                moved = getattr(doubled, rows).clone()
                moved.view(-1)[at] += sign * small
                there = loss(replace(doubled, **{rows: moved}), settings).loss
                numeric.view(-1)[at] += sign * float(there) / (2 * small)
        torch.testing.assert_close(getattr(result, rows), numeric, rtol=1e-5, atol=1e-7)


@cases
@pytest.mark.parametrize("scale", [1e9, -1e9, 0.0])
def test_is_finite_for_huge_and_zero_vectors(case: str, scale: float) -> None:
    step = a_step()
    huge = replace(
        step,
        user_UD=torch.full_like(step.user_UD, 1e9 if scale else 0.0),
        item_VD=torch.full_like(step.item_VD, scale),
    )
    result = lost(case, huge)
    assert math.isfinite(float(result.loss))
    assert result.user_UD.isfinite().all()
    assert result.item_VD.isfinite().all()


@cases
def test_a_step_against_the_gradient_raises_the_right_score(case: str) -> None:
    step = replace(
        a_step(), user_B=torch.tensor([0]), positive_B=torch.tensor([0]),
        weight_B=torch.ones(1), target_B=torch.tensor([50.0]), size=1,
    )  # fmt: skip
    result = lost(case, step)
    after = replace(
        step,
        user_UD=step.user_UD - 1e-2 * result.user_UD,
        item_VD=step.item_VD - 1e-2 * result.item_VD,
    )
    assert rank_score(case, after, 0) > rank_score(case, step, 0)
    if METHODS[SETTINGS[case][0]].negatives:
        only_items = replace(after, user_UD=step.user_UD)
        for wrong in (2, 3):
            assert rank_score(case, only_items, wrong) < rank_score(case, step, wrong)
    else:
        low = replace(step, target_B=torch.tensor([-50.0]))
        pushed = lost(case, low)
        down = replace(low, item_VD=low.item_VD - 1e-2 * pushed.item_VD)
        assert rank_score(case, down, 0) < rank_score(case, low, 0)


@cases
def test_weight_zero_gives_no_gradient(case: str) -> None:
    result = lost(case, replace(a_step(), weight_B=torch.zeros(3)))
    assert float(result.loss) == 0
    assert not result.user_UD.any()
    assert not result.item_VD.any()


@cases
def test_losses_of_parts_add_up(case: str) -> None:
    """Two workers' parts of one global batch come to what one worker would see."""
    step = a_step()
    whole = lost(case, step)
    parts = [
        lost(case, replace(step, **{k: getattr(step, k)[cut] for k in
                                    ("user_B", "positive_B", "weight_B", "target_B")}))
        for cut in (slice(0, 1), slice(1, 3))
    ]  # fmt: skip
    torch.testing.assert_close(sum(p.loss for p in parts), whole.loss)
    torch.testing.assert_close(parts[0].user_UD + parts[1].user_UD, whole.user_UD)
    torch.testing.assert_close(parts[0].item_VD + parts[1].item_VD, whole.item_VD)
