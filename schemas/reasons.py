"""Every reason a record can be rejected for."""

from __future__ import annotations

__all__ = ["CODES", "REASONS"]

# The first ones are found by the source formats.
REASONS: dict[str, str] = {
    "columns": "another number of columns than the header",
    "encoding": "bytes that the encoding does not have",
    "line_too_long": "a line longer than events.max_line_bytes",
    "quote": "a quote that is not closed, or text after a closing quote",
    "json": "no JSON object",
    "explode": "no list where events.explode names one",
    "user_missing": "no user",
    "item_missing": "no item",
    "id_too_long": "a user or item longer than events.max_id_bytes",
    "time": "a time that cannot be read",
    "time_range": "a time before events.time_min or after events.time_max",
    "weight": "a weight that is no number",
    "weight_range": "a weight that is NaN, infinite or beyond 32-bit floats",
    "type": "a type that events.signals.types does not name",
    "split": "no split",
}
CODES = {reason: code for code, reason in enumerate(REASONS)}
