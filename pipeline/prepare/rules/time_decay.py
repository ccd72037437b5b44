"""How much of an event is left after a time: half of it after each half-life.

    2 ** -(age / half-life)

The exponent is cut to 2**-24, finer than the 32-bit floats that weights end as, and its power
put together from tables: the same bits on every machine, which those of `exp2` are not.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["DAY", "left"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DAY = 86_400_000_000  # microseconds
_BITS, _TABLES = 8, 3  # of the exponent in each table
_LONGEST = 2000  # half-lives: nothing is left, in 64-bit floats


def left(time_N: Ints, until: int, half_life_days: float) -> Floats:
    """The share of each event that is left at `until`; all of one that is later.

    Args:
        time_N: microseconds.
        until: the moment at which age is 0, in microseconds.
        half_life_days: above 0.
    """
    age_N = np.maximum(until - time_N, 0) / (half_life_days * DAY)
    step_N = np.floor(np.minimum(age_N, _LONGEST) * (1 << _TABLES * _BITS)).astype(np.int64)
    share_N = np.ones(len(step_N))
    for number, table in enumerate(_tables()):
        share_N *= table[(step_N >> number * _BITS) & ((1 << _BITS) - 1)]
    halvings_N = (step_N >> _TABLES * _BITS).astype(np.int32)
    return np.ldexp(share_N, -halvings_N)  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _tables() -> tuple[Floats, ...]:
    """2 ** -(k / 2**b) for k from 0 to 255 and b = 24, 16, 8, correctly rounded."""
    with localcontext() as context:
        context.prec = 30
        half = Decimal(1) / 2
        return tuple(
            np.array([float(half ** (Decimal(k) / (1 << bits))) for k in range(1 << _BITS)])
            for bits in range(_TABLES * _BITS, 0, -_BITS)
        )
