"""What the losses share: rows scaled to length one, gradients scaled back, L2, products.

Legend: B events here, U distinct users, V distinct items, K negatives, D columns (of a
biased objective the last one is the bias).
"""

from __future__ import annotations

import torch
from torch import Tensor

from embedmill.pipeline.train.losses.contract import LossSettings, Step

__all__ = ["decay", "multiply", "scaled", "unscale"]


def scaled(rows_ND: Tensor, cosine: bool) -> tuple[Tensor, Tensor | None]:
    """Rows of length one and what they were multiplied by; the zero row stays zero."""
    if not cosine:
        return rows_ND, None
    length_N1 = torch.linalg.vector_norm(rows_ND, dim=1, keepdim=True)
    scale_N1 = length_N1.square_().add_(1e-12).rsqrt_()
    return rows_ND * scale_N1, scale_N1


def unscale(pushed_ND: Tensor, scaled_ND: Tensor, scale_N1: Tensor | None) -> None:
    """Turn gradients by scaled rows into gradients by the rows themselves, in place."""
    if scale_N1 is not None:
        along_N1 = (pushed_ND * scaled_ND).sum(1, keepdim=True)
        pushed_ND.addcmul_(along_N1, scaled_ND, value=-1).mul_(scale_N1)


def decay(
    step: Step, settings: LossSettings, pushed_UD: Tensor, pushed_VD: Tensor
) -> Tensor | float:
    """L2 on each event's user and positive row: adds its gradients, returns its loss."""
    l2_bias = settings.l2 if settings.l2_bias is None else settings.l2_bias
    if not (settings.l2 or (settings.biased and l2_bias)):
        return 0.0
    share_B = step.weight_B / step.size
    l2_D = share_B.new_full((step.user_UD.shape[1],), settings.l2)
    if settings.biased:
        l2_D[-1] = l2_bias
    loss = torch.zeros((), dtype=torch.float64, device=share_B.device)
    for rows_ND, index_B, pushed_ND, decay_N in (
        (step.user_UD, step.user_B, pushed_UD, step.user_decay_U),
        (step.item_VD, step.positive_B, pushed_VD, step.item_decay_V),
    ):
        share_N = share_B.new_zeros(len(rows_ND)).index_add_(0, index_B, share_B)
        if decay_N is not None:
            share_N *= decay_N
        pushed_ND.add_(2 * share_N[:, None] * l2_D * rows_ND)
        loss = loss + (rows_ND.double().square() @ l2_D.double() * share_N).sum()
    return loss


def multiply(left: Tensor, right: Tensor, out: Tensor, *, onto: Tensor | None = None) -> None:
    """Set `out` to left @ right, added to `onto` where it is given (it may be `out` itself).

    Where one factor is of bfloat16, both are rounded to it. `out` and `onto` are of float32, and
    so are the sums of a product; only on the CPU they are rounded once more before they are
    added, since its products have the type of their factors.
    """
    if torch.bfloat16 not in (left.dtype, right.dtype):
        if onto is None:
            torch.mm(left, right, out=out)
        else:
            torch.addmm(onto, left, right, out=out)
        return
    left, right = left.bfloat16(), right.bfloat16()
    made = torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left @ right
    if onto is None:
        out.copy_(made)
    else:
        torch.add(onto, made, out=out)
