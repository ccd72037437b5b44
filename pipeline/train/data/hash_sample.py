"""A sample of numbers, drawn by a hash: the same whoever draws, and in whatever order.

Legend: N numbers.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["in_sample"]

_BITS = 31


def in_sample(number_N: Tensor, share: float, salt: int) -> Tensor:
    """Which numbers are sampled, bool [N]; those of a share are among those of a larger one.

    Args:
        number_N: integers.
        share: of all numbers, 0 to 1.
        salt: another one samples others.
    """
    return _hash(number_N, salt) < int(share * (1 << _BITS))


def _hash(number_N: Tensor, salt: int) -> Tensor:
    """A hash of each number, int64 [N] from 0 to 2 ** 31 - 1; multiplications wrap around."""
    mixed_N = number_N.long() + salt
    for multiplier in (-4658895280553007687, -7723592293110685705):  # of splitmix64, signed
        mixed_N = (mixed_N ^ ((mixed_N >> 29) & ((1 << 35) - 1))) * multiplier
    return (mixed_N >> 32) & ((1 << _BITS) - 1)
