"""The loss of ratings, and L2, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from embedmill.pipeline.train.losses import LossInput, LossSettings
from tests.support.losses import METHODS


def test_rating_by_hand() -> None:
    step = LossInput(
        torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[3.0, -1.0, 0.25]]),
        torch.tensor([0]), torch.tensor([0]), torch.empty(0, dtype=torch.int64), torch.empty(0),
        torch.ones(1), torch.tensor([4.0]), 2,
    )  # fmt: skip
    result = METHODS["rating"].loss(step, LossSettings(biased=True, mean=3.0, l2=0.1))
    # 3 + .5 + .25 + 1 = 4.75 for 4; squares 5.25 and 10.0625; half of a batch of two.
    assert float(result.loss) == pytest.approx((0.75**2 + 0.1 * (5.25 + 10.0625)) / 2)
    expected = [0.75 * 3 + 0.1 * 1, 0.75 * -1 + 0.1 * 2, 0.75 + 0.1 * 0.5]
    assert result.user_UD[0].tolist() == pytest.approx(expected)


def test_l2_by_hand() -> None:
    """L2 .1, of the user's row halved, and .02 on biases; the second item is no event's."""
    step = LossInput(
        torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[3.0, -1.0, 0.25], [9.0, 9.0, 9.0]]),
        torch.tensor([0, 0]), torch.tensor([0, 0]), torch.empty(0, dtype=torch.int64),
        torch.empty(0), torch.ones(2), torch.tensor([4.75, 4.75]), 2,
        torch.tensor([0.5]), torch.tensor([2.0, 7.0]),
    )  # fmt: skip
    settings = LossSettings(biased=True, mean=3.0, l2=0.1, l2_bias=0.02)
    result = METHODS["rating"].loss(step, settings)
    # The rating is met: what is left is L2. Squares 5 and .25, 10 and .0625.
    user, item = 0.1 * 5 + 0.02 * 0.25, 0.1 * 10 + 0.02 * 0.0625
    assert float(result.loss) == pytest.approx(0.5 * user + 2 * item)
    assert result.user_UD[0].tolist() == pytest.approx([0.1, 0.2, 0.01])
    assert result.item_VD[0].tolist() == pytest.approx([1.2, -0.4, 0.02])
    assert result.item_VD[1].tolist() == [0, 0, 0]
