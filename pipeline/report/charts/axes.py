"""Scales and ticks of charts."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Scale", "log_ticks", "ticks"]


@dataclass(frozen=True)
class Scale:
    """Turns values into percent of the chart's box, from its left and from its top.

    `left`, `right`, `bottom` and `top` are the values at the edges of the box.
    """

    left: float
    right: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        """From the left, in percent."""
        return 100 * (value - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        """From the top, in percent."""
        return 100 - 100 * (value - self.bottom) / (self.top - self.bottom)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Evenly spaced round numbers that cover [low, high], at most about `most` of them."""
    greatest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * greatest, 1e-12):
        half = 0.5 * greatest if greatest > 1e-9 else 0.5
        low, high = low - half, high + half
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis that covers [low, high], at most about eight.

    They are powers of ten; where the axis covers few of these, also 2 and 5 times as much.
    """
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if last - first > 2:
        step = -(-(last - first) // 7)
        return [10.0**power for power in range(last, first - step, -step)][::-1]
    fine = [m * 10.0**power for power in range(first, last + 2) for m in (1, 2, 5)]
    least = max(v for v in fine if v <= low * (1 + 1e-9))
    most = min(v for v in fine if v >= high * (1 - 1e-9) and v > least)
    return [v for v in fine if least <= v <= most]
