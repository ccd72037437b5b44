"""What the losses share: normalization and its gradient, L2, and products in lower precision.

Legend: B events of this worker, U distinct users, V distinct items, N rows of either, D columns
(of an objective with biases the last one is the bias).
"""

from __future__ import annotations

import torch
from torch import Tensor

from embedmill.pipeline.train.losses.loss import LossInput, LossSettings

__all__ = ["add_l2", "backward_normalized", "multiply", "normalized", "threshold_weights"]


def normalized(rows_ND: Tensor, cosine: bool) -> tuple[Tensor, Tensor | None]:
    """Rows as the similarity takes them: of length one for cosine, otherwise as they are.

    Returns:
        rows [N, D] (a zero row stays zero), and what they were multiplied by, [N, 1] or None.
    """
    if not cosine:
        return rows_ND, None
    length_N1 = torch.linalg.vector_norm(rows_ND, dim=1, keepdim=True)
    scale_N1 = length_N1.square_().add_(1e-12).rsqrt_()
    return rows_ND * scale_N1, scale_N1


def backward_normalized(gradient_ND: Tensor, unit_ND: Tensor, scale_N1: Tensor | None) -> None:
    """Turn gradients by normalized rows into gradients by the rows themselves, in place.

    Args:
        gradient_ND: gradients by the rows that `normalized` returned.
        unit_ND: those rows.
        scale_N1: what `normalized` multiplied them by; None: nothing to do.
    """
    if scale_N1 is not None:
        along_N1 = (gradient_ND * unit_ND).sum(1, keepdim=True)
        gradient_ND.addcmul_(along_N1, unit_ND, value=-1).mul_(scale_N1)


def add_l2(
    step: LossInput, settings: LossSettings, gradient_UD: Tensor, gradient_VD: Tensor
) -> Tensor | float:
    """L2 of each event's user row and positive item row.

    Args:
        step: the step.
        settings: `l2` and `l2_bias`.
        gradient_UD: gradients by the user rows, to which those of the L2 are added.
        gradient_VD: gradients by the item rows, likewise.

    Returns:
        the loss of the L2; a float 0.0 where there is none.
    """
    l2_bias = settings.l2 if settings.l2_bias is None else settings.l2_bias
    if not (settings.l2 or (settings.biased and l2_bias)):
        return 0.0
    share_B = step.weight_B / step.size
    l2_D = share_B.new_full((step.user_UD.shape[1],), settings.l2)
    if settings.biased:
        l2_D[-1] = l2_bias
    loss = torch.zeros((), dtype=torch.float64, device=share_B.device)
    for rows_ND, index_B, gradient_ND, factor_N in (
        (step.user_UD, step.user_B, gradient_UD, step.user_l2_U),
        (step.item_VD, step.positive_B, gradient_VD, step.item_l2_V),
    ):
        share_N = share_B.new_zeros(len(rows_ND)).index_add_(0, index_B, share_B)
        if factor_N is not None:
            share_N *= factor_N
        gradient_ND.add_(2 * share_N[:, None] * l2_D * rows_ND)
        loss = loss + (rows_ND.double().square() @ l2_D.double() * share_N).sum()
    return loss


def threshold_weights(step: LossInput, settings: LossSettings, score_B: Tensor) -> Tensor | float:
    """How much events count by SL@K, [B]; 1.0 where they are not weighed (arXiv 2508.05673).

    sigmoid((score of the positive - the user's threshold) / `settings.threshold_temperature`). The
    weights are constants of the step: no gradient is theirs.

    Args:
        step: the step, with the users' thresholds.
        settings: of the loss.
        score_B: similarities of the positives with their users, and biases, not divided by the
            temperature.
    """
    if settings.threshold_temperature is None or step.threshold_U is None:
        return 1.0
    above_B = score_B - step.threshold_U.index_select(0, step.user_B)
    return above_B.div_(settings.threshold_temperature).sigmoid_()


def multiply(left: Tensor, right: Tensor, out: Tensor, *, addend: Tensor | None = None) -> None:
    """Set `out` to left @ right, plus `addend` if given.

    Where one factor is bfloat16, both are rounded to it. `out` and `addend` are float32. On a
    GPU the product is summed and returned in float32; on the CPU a product has the type of its
    factors, so it is rounded to bfloat16 before it is added.

    Args:
        left: the left factor.
        right: the right factor.
        out: where the result is written.
        addend: added to the product; it may be `out` itself.
    """
    if torch.bfloat16 not in (left.dtype, right.dtype):
        if addend is None:
            torch.mm(left, right, out=out)
        else:
            torch.addmm(addend, left, right, out=out)
        return
    left, right = left.bfloat16(), right.bfloat16()
    product = torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left @ right
    if addend is None:
        out.copy_(product)
    else:
        torch.add(addend, product, out=out)
