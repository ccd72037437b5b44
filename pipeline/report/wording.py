"""How figures and other people's text are put on the page."""

from __future__ import annotations

import html
import json
import math
from typing import Any

__all__ = [
    "count",
    "embedded_json",
    "escape",
    "figure",
    "plural",
    "ratio",
    "seconds",
    "signed",
    "size",
    "title",
]

_LONGEST_TITLE = 160
# C0 controls other than tab and newline have no place in HTML: show their pictures.
_CONTROLS = {c: 0x2400 + c for c in range(32) if c not in (9, 10)} | {127: 0x2421}
_ABSENT = "–"
_JOIN = "\N{NO-BREAK SPACE}"  # a number and its unit stay together


def escape(text: object) -> str:
    """Any text as HTML text or as a quoted attribute's value."""
    return html.escape(str(text).translate(_CONTROLS), quote=True)


def title(text: str) -> str:
    """A title from the log as HTML: escaped, cut when very long, its direction isolated."""
    shown = text if len(text) <= _LONGEST_TITLE else text[: _LONGEST_TITLE - 1] + "…"
    return f"<bdi>{escape(shown) or '(empty)'}</bdi>"


def embedded_json(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


def count(value: float | None) -> str:
    """A whole number with separators."""
    return _ABSENT if value is None else f"{int(value):,}"


def plural(value: float | None, noun: str) -> str:
    """A count with its noun: "1 item", "2 items"."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def signed(value: float) -> str:
    """To two decimals, with a plus or a true minus."""
    return f"{value:+.2f}".replace("-", "−")


def figure(value: float | None, digits: int = 4) -> str:
    """A metric, to so many decimals."""
    return _ABSENT if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def ratio(value: float | None, over: float | None) -> str:
    """How many times `over` the value is."""
    return _ABSENT if value is None or not over else f"{value / over:.2f}×"


def seconds(value: float | None) -> str:
    """A duration, in the unit that suits it."""
    if value is None:
        return _ABSENT
    if value < 1:
        return f"{value * 1000:.0f}{_JOIN}ms"
    if value < 100:
        return f"{value:.1f}{_JOIN}s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}{_JOIN}min {whole % 60}{_JOIN}s"
    return f"{whole // 3600}{_JOIN}h {whole % 3600 // 60}{_JOIN}min"


def size(value: float | None) -> str:
    """Bytes, in the decimal unit that suits them."""
    if value is None:
        return _ABSENT
    amount = float(value)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.{0 if unit == 'bytes' else 1}f}{_JOIN}{unit}"
        amount /= 1000
    return f"{amount:.1f}{_JOIN}TB"
