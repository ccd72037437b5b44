"""Every loss keeps the same promises; each is also worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from embedmill.pipeline.train.losses import LossInput, LossResult, LossSettings
from embedmill.pipeline.train.objectives import OBJECTIVES
from embedmill.pipeline.train.objectives.gradient_descent import GradientDescent

METHODS = {
    name: objective.method
    for name, objective in OBJECTIVES.items()
    if isinstance(objective.method, GradientDescent)
}
SETTINGS = {
    "softmax cosine": ("softmax", LossSettings(similarity="cosine", temperature=0.5)),
    "softmax dot": ("softmax", LossSettings(similarity="dot", temperature=2.0)),
    "softmax cosine bias": (
        "softmax",
        LossSettings(biased=True, similarity="cosine", temperature=0.5, l2=0.01),
    ),
    "softmax dot bias": ("softmax", LossSettings(biased=True, temperature=1.0, l2=0.1)),
    "bsl cosine": (
        "softmax",
        LossSettings(similarity="cosine", temperature=0.5, temperature_ratio=1.25, l2=0.01),
    ),
    "bsl dot bias": ("softmax", LossSettings(biased=True, temperature=2.0, temperature_ratio=0.75)),
    "bpr dot": ("bpr", LossSettings(temperature=2.0, l2=0.1)),
    "bpr cosine bias": ("bpr", LossSettings(biased=True, similarity="cosine", temperature=0.5)),
    "ccl": ("ccl", LossSettings(margin=-0.8, negative_weight=3.0, l2=0.1, similarity="cosine")),
    "item2vec dot": ("item2vec", LossSettings(temperature=2.0, per_pair=5.0, l2=0.1)),
    "item2vec cosine": (
        "item2vec",
        LossSettings(similarity="cosine", temperature=0.5, per_pair=2.0),
    ),
    "item2vec-softmax": ("item2vec-softmax", LossSettings(similarity="cosine", temperature=0.5)),
    "rating": ("rating", LossSettings(biased=True, mean=3.5, l2=0.1)),
    "rating biases apart": (
        "rating",
        LossSettings(biased=True, mean=3.5, l2=0.1, l2_bias=0.03),
    ),
    "rating biases alone": ("rating", LossSettings(biased=True, mean=3.5, l2_bias=0.3)),
}
cases = pytest.mark.parametrize("case", SETTINGS)


def a_step(seed: int = 0, scale: float = 1.0) -> LossInput:
    """Three events of two users; negatives are items 2, 3, and item 0, a hit for some."""
    source = torch.Generator().manual_seed(seed)
    return LossInput(
        user_UD=torch.randn(2, 4, generator=source) * scale,
        item_VD=torch.randn(4, 4, generator=source) * scale,
        user_B=torch.tensor([0, 1, 1]),
        positive_B=torch.tensor([0, 1, 0]),
        negative_K=torch.tensor([2, 3, 0]),
        log_expected_K=torch.tensor([0.1, -0.2, 0.3]),
        weight_B=torch.tensor([1.0, 0.5, 2.0]),
        target_B=torch.tensor([4.0, 1.0, 5.0]),
        size=5,
        user_l2_U=torch.tensor([0.5, 0.25]),
        item_l2_V=torch.tensor([1.0, 0.75, 0.5, 2.0]),
    )


def lost(case: str, step: LossInput) -> LossResult:
    name, settings = SETTINGS[case]
    return METHODS[name].loss(step, settings)


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
    small = 1e-6
    for name in ("user_UD", "item_VD"):
        numeric = torch.zeros_like(getattr(doubled, name))
        for at in range(numeric.numel()):
            for sign in (1, -1):
                moved = getattr(doubled, name).clone()
                moved.view(-1)[at] += sign * small
                there = lost(case, replace(doubled, **{name: moved})).loss
                numeric.view(-1)[at] += sign * float(there) / (2 * small)
        torch.testing.assert_close(getattr(result, name), numeric, rtol=1e-5, atol=1e-7)


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


def by_hand(
    temperature: float, similarity: str, bias: bool, ratio: float | None = None
) -> LossResult:
    """One event: user (3, 4), right item (1, 0), wrong ones (0, 2) and the right one again."""
    width = 3 if bias else 2
    user, items = torch.zeros(1, width), torch.zeros(2, width)
    user[0, :2] = torch.tensor([3.0, 4.0])
    items[:, :2] = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    if bias:
        user[0, 2], items[:, 2] = 100.0, torch.tensor([0.25, -0.5])
    step = LossInput(
        user, items, torch.tensor([0]), torch.tensor([0]), torch.tensor([1, 0]),
        torch.tensor([math.log(2.0), 0.0]), torch.ones(1), torch.ones(1), 1,
    )  # fmt: skip
    settings = LossSettings(bias, similarity, temperature, temperature_ratio=ratio)
    return METHODS["softmax"].loss(step, settings)


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


def test_bsl_by_hand() -> None:
    # Cosines .6 and .8 at temperature .1. The weights are 1/2, and 1 of the hit, which adds 0:
    # the mean is e^8 / 2 over 3/2.
    result = by_hand(0.1, "cosine", bias=False, ratio=1.25)
    assert float(result.loss) == pytest.approx(-6 + 1.25 * (8 - math.log(3)))
    # By the unit user (.6, .8): 10 (1.25 (0, 1) - (1, 0)), less what lies along it, 4, over 5.
    expected = [(-10 - 4 * 0.6) / 5, (12.5 - 4 * 0.8) / 5]
    assert result.user_UD[0].tolist() == pytest.approx(expected, rel=1e-5)
    # Scores 3 and 8, and with biases 3.25 and 7.5, over a temperature of 2.
    dot, biased = (by_hand(2.0, "dot", bias, ratio=0.5) for bias in (False, True))
    assert float(dot.loss) == pytest.approx(-1.5 + 0.5 * (4 - math.log(3)), abs=1e-6)
    assert float(biased.loss) == pytest.approx(-1.625 + 0.5 * (3.75 - math.log(3)), abs=1e-6)
    assert dot.user_UD[0].tolist() == pytest.approx([-0.5, 0.5 * 0.5 * 2])
    assert biased.item_VD[:, 2].tolist() == pytest.approx([-0.5, 0.25])


@pytest.mark.parametrize("temperature", [0.5, 0.005])
def test_an_event_without_other_negatives_adds_nothing_to_bsl(temperature: float) -> None:
    settings = LossSettings(
        similarity="cosine", temperature=temperature, temperature_ratio=1.2, biased=False
    )
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
@pytest.mark.parametrize(("temperature", "rounded"), [(0.5, False), (0.012, False), (0.1, True)])
def test_bsl_is_that_of_autograd(
    temperature: float, rounded: bool, monkeypatch: pytest.MonkeyPatch
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
    unit_UD, unit_VD = (torch.nn.functional.normalize(t) for t in leaves)
    score_BV = unit_UD[step.user_B] @ unit_VD.T / temperature
    corrected_BK = score_BV[:, step.negative_K] - step.log_expected_K
    hit_BK = step.negative_K == step.positive_B[:, None]
    mean_B = corrected_BK.masked_fill(hit_BK, -torch.inf).logsumexp(1)
    mean_B = mean_B - (-step.log_expected_K).logsumexp(0)
    positive_B = score_BV.gather(1, step.positive_B[:, None])[:, 0]
    loss = ((1.22 * mean_B - positive_B) * step.weight_B / step.size).sum()
    loss.backward()
    still = replace(step, user_UD=user_UD.detach(), item_VD=item_VD.detach())
    if rounded:
        floats = ("user_UD", "item_VD", "log_expected_K", "weight_B")
        still = replace(still, **{name: getattr(still, name).float() for name in floats})
    settings = LossSettings(
        similarity="cosine", temperature=temperature, temperature_ratio=1.22, rounded=rounded
    )
    result = METHODS["softmax"].loss(still, settings)
    close = {"rtol": 0.03, "atol": 0.02 / temperature / 80} if rounded else {}
    torch.testing.assert_close(result.loss.double(), loss.detach(), **close)
    torch.testing.assert_close(result.user_UD.double(), user_UD.grad, **close)
    torch.testing.assert_close(result.item_VD.double(), item_VD.grad, **close)


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
