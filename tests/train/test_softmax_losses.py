"""Softmax loss, BSL, PSL and the weights of SL@K, worked out by hand and by autograd."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from embedmill.pipeline.train.losses import LossInput, LossResult, LossSettings
from tests.support.losses import METHODS, a_step

ACTIVATIONS = {
    "relu": lambda d: (1 + d).clamp(min=0),
    "tanh": lambda d: 1 + d.tanh(),
    "atan": lambda d: 1 + d.atan(),
}


def by_hand(temperature: float, similarity: str, bias: bool, **settings: Any) -> LossResult:
    """One event: user (3, 4), right item (1, 0), wrong ones (0, 2) and the right one again.

    The user's threshold, where there is one, is .8.
    """
    width = 3 if bias else 2
    user, items = torch.zeros(1, width), torch.zeros(2, width)
    user[0, :2] = torch.tensor([3.0, 4.0])
    items[:, :2] = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    if bias:
        user[0, 2], items[:, 2] = 100.0, torch.tensor([0.25, -0.5])
    step = LossInput(
        user, items, torch.tensor([0]), torch.tensor([0]), torch.tensor([1, 0]),
        torch.tensor([math.log(2.0), 0.0]), torch.ones(1), torch.ones(1), 1,
        threshold_U=torch.tensor([0.8]),
    )  # fmt: skip
    one = LossSettings(bias, similarity, temperature, **settings)
    return METHODS["softmax"].loss(step, one)


def test_softmax_by_hand() -> None:
    # Scores 3 and 8, of which the second is corrected by log 2; the hit is left out.
    assert float(by_hand(1.0, "dot", bias=False).loss) == pytest.approx(
        math.log(1 + math.exp(5) / 2)
    )
    # Cosines .6 and .8 at temperature .1.
    cosine = by_hand(0.1, "cosine", bias=False)
    assert float(cosine.loss) == pytest.approx(math.log(1 + math.exp(2) / 2))
    # Biases .25 and -.5 join the cosines; the user's plays no part.
    biased = by_hand(0.1, "cosine", bias=True)
    assert float(biased.loss) == pytest.approx(math.log(1 + math.exp(-5.5) / 2))


def test_weights_of_thresholds_by_hand() -> None:
    """The score .6 is .2 below the threshold: over .1, the logistic function of -2."""
    weight = 1 / (1 + math.exp(2))
    for settings in ({}, {"temperature_ratio": 1.25}, {"activation": "relu"}):
        plain = by_hand(0.1, "cosine", bias=False, **settings)
        weighted = by_hand(0.1, "cosine", bias=False, threshold_temperature=0.1, **settings)
        assert float(weighted.loss) == pytest.approx(weight * float(plain.loss), rel=1e-5)
        torch.testing.assert_close(weighted.user_UD, weight * plain.user_UD)
        torch.testing.assert_close(weighted.item_VD, weight * plain.item_VD)
    # The inner product 3 and the bias .25 are 2.45 above it.
    plain = by_hand(2.0, "dot", bias=True)
    weighted = by_hand(2.0, "dot", bias=True, threshold_temperature=2.45)
    torch.testing.assert_close(weighted.loss, plain.loss / (1 + math.exp(-1)))


def test_psl_by_hand() -> None:
    # Cosines .6 and .8: half the difference is .1. Weights 1/3 of (0, 2), 2/3 of the hit.
    d, power = 0.1, 2
    for activation, value, slope in (
        ("relu", 1 + d, 1.0),
        ("tanh", 1 + math.tanh(d), 1 - math.tanh(d) ** 2),
        ("atan", 1 + math.atan(d), 1 / (1 + d * d)),
    ):
        result = by_hand(1 / power, "cosine", bias=False, activation=activation)
        assert float(result.loss) == pytest.approx(math.log(value**power / 3), rel=1e-5)
        # By the unit user (.6, .8): power s' / (2 s) ((0, 1) - (1, 0)), less what lies along it.
        by_unit = power * slope / (2 * value)
        expected = [by_unit * (-1 - 0.2 * 0.6) / 5, by_unit * (1 - 0.2 * 0.8) / 5]
        assert result.user_UD[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_bsl_by_hand() -> None:
    # Cosines .6 and .8 at temperature .1. The weights are 1/2, and 1 of the hit, which adds 0:
    # the mean is e^8 / 2 over 3/2.
    result = by_hand(0.1, "cosine", bias=False, temperature_ratio=1.25)
    assert float(result.loss) == pytest.approx(-6 + 1.25 * (8 - math.log(3)))
    # By the unit user (.6, .8): 10 (1.25 (0, 1) - (1, 0)), less what lies along it, 4, over 5.
    expected = [(-10 - 4 * 0.6) / 5, (12.5 - 4 * 0.8) / 5]
    assert result.user_UD[0].tolist() == pytest.approx(expected, rel=1e-5)
    # Scores 3 and 8, and with biases 3.25 and 7.5, over a temperature of 2.
    dot, biased = (by_hand(2.0, "dot", bias, temperature_ratio=0.5) for bias in (False, True))
    assert float(dot.loss) == pytest.approx(-1.5 + 0.5 * (4 - math.log(3)), abs=1e-6)
    assert float(biased.loss) == pytest.approx(-1.625 + 0.5 * (3.75 - math.log(3)), abs=1e-6)
    assert dot.user_UD[0].tolist() == pytest.approx([-0.5, 0.5 * 0.5 * 2])
    assert biased.item_VD[:, 2].tolist() == pytest.approx([-0.5, 0.25])


@pytest.mark.parametrize("temperature", [0.5, 0.005])
@pytest.mark.parametrize("loss", [{"temperature_ratio": 1.2}, {"activation": "tanh"}])
def test_an_event_without_other_negatives_adds_nothing(
    loss: dict[str, Any], temperature: float
) -> None:
    settings = LossSettings(similarity="cosine", temperature=temperature, biased=False, **loss)
    step = replace(a_step(), negative_K=torch.zeros(3, dtype=torch.int64))
    result = METHODS["softmax"].loss(step, settings)
    alone = replace(
        step, user_B=torch.tensor([1]), positive_B=torch.tensor([1]), weight_B=torch.tensor([0.5])
    )
    expected = METHODS["softmax"].loss(alone, settings)
    assert math.isfinite(float(result.loss))
    torch.testing.assert_close(result.loss, expected.loss)
    torch.testing.assert_close(result.user_UD, expected.user_UD)
    torch.testing.assert_close(result.item_VD, expected.item_VD)


# At a temperature of .012 sums could overflow.
@pytest.mark.parametrize(
    ("temperature", "rounded", "activation"),
    [
        (0.5, False, None), (0.012, False, None), (0.1, True, None),
        (0.4, False, "relu"), (0.1, False, "tanh"), (0.004, False, "atan"),
    ],
)  # fmt: skip
def test_bsl_and_psl_are_those_of_autograd(
    temperature: float,
    rounded: bool,
    activation: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As its paper has it, over several blocks, with negatives drawn twice, corrected, and hits."""
    monkeypatch.setattr("embedmill.pipeline.train.losses.batch_blocks._SCORES", 1)
    source = torch.Generator().manual_seed(3)
    user_UD, item_VD = (torch.randn(*s, generator=source).double() for s in ((9, 5), (40, 5)))
    leaves = [t.requires_grad_() for t in (user_UD, item_VD)]
    step = LossInput(
        user_UD, item_VD, torch.randint(9, (80,), generator=source),
        torch.randint(40, (80,), generator=source), torch.randint(40, (12,), generator=source),
        torch.zeros(12), torch.rand(80, generator=source).double(), torch.zeros(80), 100,
    )  # fmt: skip
    expected_V = torch.rand(40, generator=source).double()
    step = replace(step, log_expected_K=expected_V[step.negative_K])
    unit_UD, unit_VD = (functional.normalize(t) for t in leaves)
    score_BV = unit_UD[step.user_B] @ unit_VD.T / temperature
    positive_B = score_BV.gather(1, step.positive_B[:, None])[:, 0]
    corrected_BK = score_BV[:, step.negative_K] - step.log_expected_K
    if activation:
        cosine_BK = score_BV[:, step.negative_K] - positive_B[:, None]
        value_BK = ACTIVATIONS[activation](cosine_BK * temperature / 2)
        corrected_BK = value_BK.log() / temperature - step.log_expected_K
    hit_BK = step.negative_K == step.positive_B[:, None]
    mean_B = corrected_BK.masked_fill(hit_BK, -torch.inf).logsumexp(1)
    mean_B = mean_B - (-step.log_expected_K).logsumexp(0)
    loss_B = mean_B if activation else 1.22 * mean_B - positive_B
    loss = (loss_B * step.weight_B / step.size).sum()
    loss.backward()
    still = replace(step, user_UD=user_UD.detach(), item_VD=item_VD.detach())
    if rounded:
        floats = ("user_UD", "item_VD", "log_expected_K", "weight_B")
        still = replace(still, **{name: getattr(still, name).float() for name in floats})
    settings = LossSettings(
        similarity="cosine", temperature=temperature, rounded=rounded, activation=activation,
        temperature_ratio=None if activation else 1.22,
    )  # fmt: skip
    result = METHODS["softmax"].loss(still, settings)
    close = {"rtol": 0.03, "atol": 0.02 / temperature / 80} if rounded else {}
    torch.testing.assert_close(result.loss.double(), loss.detach(), **close)
    torch.testing.assert_close(result.user_UD.double(), user_UD.grad, **close)
    torch.testing.assert_close(result.item_VD.double(), item_VD.grad, **close)
