"""Time decay: the share of its weight that an event keeps as it ages.

    2 ** -(age / half-life)

The exponent is rounded down to a multiple of 2**-24, finer than the 32-bit floats in which
weights are stored, and the power is a product of table entries. The result has the same bits on
every machine, which `exp2` does not promise.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.prepare.histograms import MICROSECONDS_PER_DAY

__all__ = ["remaining_weight"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_TABLE_BITS, _TABLES = 8, 3  # bits of the exponent that a table covers; number of tables
_MAX_HALF_LIVES = 2000  # older events keep nothing in 64-bit floats


def remaining_weight(time_N: Ints, reference_time: int, half_life_days: float) -> Floats:
    """The share of its weight that each event keeps at `reference_time`; 1 for later events.

    Args:
        time_N: times of the events, microseconds.
        reference_time: the moment at which an event's age is 0, microseconds.
        half_life_days: above 0.

    Returns:
        float64 [N], in [0, 1].
    """
    age_N = np.maximum(reference_time - time_N, 0) / (half_life_days * MICROSECONDS_PER_DAY)
    exponent_bits = _TABLES * _TABLE_BITS
    step_N = np.floor(np.minimum(age_N, _MAX_HALF_LIVES) * (1 << exponent_bits)).astype(np.int64)
    share_N = np.ones(len(step_N))
    for number, table in enumerate(_power_tables()):
        share_N *= table[(step_N >> number * _TABLE_BITS) & ((1 << _TABLE_BITS) - 1)]
    halvings_N = (step_N >> exponent_bits).astype(np.int32)
    return np.ldexp(share_N, -halvings_N)  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _power_tables() -> tuple[Floats, ...]:
    """2 ** -(k / 2**b) for k from 0 to 255 and b = 24, 16, 8, each correctly rounded."""
    with localcontext() as context:
        context.prec = 30
        half = Decimal(1) / 2
        return tuple(
            np.array([float(half ** (Decimal(k) / (1 << bits))) for k in range(1 << _TABLE_BITS)])
            for bits in range(_TABLES * _TABLE_BITS, 0, -_TABLE_BITS)
        )
