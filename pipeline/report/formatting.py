"""How numbers and titles are written on the page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

__all__ = [
    "FILTERS",
    "count",
    "decimal",
    "embedded_json",
    "item_title",
    "metric_name",
    "percent",
    "plural",
    "ratio",
    "seconds",
    "signed",
    "significant",
    "size",
    "width",
    "without_controls",
]

_LONGEST_TITLE = 160
# Control characters other than tab and newline are not allowed in HTML: Unicode's pictures of
# them are shown instead.
_CONTROL_PICTURES = {c: 0x2400 + c for c in range(32) if c not in (9, 10)} | {127: 0x2421}
_ABSENT = "–"
_NBSP = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line
_METRIC_NAMES = {
    "ndcg": "NDCG",
    "mrr": "MRR",
    "hit_rate": "Hit rate",
    "rmse": "RMSE",
    "mae": "MAE",
}


def without_controls(value: Any) -> Any:
    """Text (or Markup) with pictures of its control characters; any other value as it is."""
    return value.translate(_CONTROL_PICTURES) if isinstance(value, str) else value


def item_title(text: str) -> Markup:
    """A title from the log: cut when very long, its writing direction kept to itself."""
    shown = text if len(text) <= _LONGEST_TITLE else text[: _LONGEST_TITLE - 1] + "…"
    return Markup("<bdi>{}</bdi>").format(without_controls(shown) or "(empty)")


def embedded_json(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return Markup(text)


def metric_name(name: str) -> str:
    """A metric's key as people write it: "recall@10" → "Recall@10", "ndcg@5" → "NDCG@5"."""
    prefix, dot, rest = name.partition(".")
    if dot and "@" in rest:
        return f"{prefix.replace('_', ' ').capitalize()} {rest.replace('_', ' ')}"
    stem, at, k = name.partition("@")
    return _METRIC_NAMES.get(stem, stem.replace("_", " ").capitalize()) + at + k


def count(value: float | None) -> str:
    """A whole number with separators."""
    return _ABSENT if value is None else f"{int(value):,}"


def plural(value: float | None, noun: str) -> str:
    """A count with its noun: "1 item", "2 items"."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def signed(value: float) -> str:
    """A number to two decimals, with a plus or a minus sign (U+2212)."""
    return f"{value:+.2f}".replace("-", "−")


def decimal(value: float | None, digits: int = 4) -> str:
    """A number with `digits` decimals."""
    return _ABSENT if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def significant(value: float) -> str:
    """A number to four significant digits."""
    text = f"{value:.4g}"
    return text if "e" not in text or abs(value) < 1 else f"{value:,.0f}"


def ratio(value: float | None, over: float | None) -> str:
    """The value divided by `over`, as "1.64×"."""
    return _ABSENT if value is None or not over else f"{value / over:.2f}×"


def percent(share: float, unit: str = f"{_NBSP}%") -> str:
    """A share of 1 in percent, to one decimal."""
    return f"{100 * share:.1f}{unit}"


def width(value: float, whole: float, digits: int = 1) -> str:
    """The value as a CSS length: its share of `whole`, from 0 % to 100 %."""
    return f"{max(0.0, min(100.0, 100 * value / whole)):.{digits}f}%"


def seconds(value: float | None) -> str:
    """A duration: "42 ms", "1.2 s", "2 min 5 s", "2 h 3 min"."""
    if value is None:
        return _ABSENT
    if value < 1:
        return f"{value * 1000:.0f}{_NBSP}ms"
    if value < 100:
        return f"{value:.1f}{_NBSP}s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60}{_NBSP}min {whole % 60}{_NBSP}s"
    return f"{whole // 3600}{_NBSP}h {whole % 3600 // 60}{_NBSP}min"


def size(value: float | None) -> str:
    """A number of bytes: "999 bytes", "1.5 kB", "2.5 GB"."""
    if value is None:
        return _ABSENT
    amount = float(value)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.{0 if unit == 'bytes' else 1}f}{_NBSP}{unit}"
        amount /= 1000
    return f"{amount:.1f}{_NBSP}TB"


def _position(value: float) -> str:
    """A position in a chart, in percent of its box."""
    return f"{value:.2f}%"


def _general(value: float) -> str:
    """A number as it was configured: 0.5, 10, 1e-05."""
    return f"{value:g}"


# By the names that templates use.
FILTERS: dict[str, Callable[..., Any]] = {
    "count": count,
    "decimal": decimal,
    "embedded_json": embedded_json,
    "general": _general,
    "item_title": item_title,
    "metric_name": metric_name,
    "percent": percent,
    "plural": plural,
    "position": _position,
    "ratio": ratio,
    "seconds": seconds,
    "signed": signed,
    "significant": significant,
    "size": size,
    "width": width,
}
