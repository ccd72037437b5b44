"""JSON records that follow each other without a newline, as Amazon Data Firehose writes them."""

from __future__ import annotations

import re

import numpy as np

from embedmill.pipeline.prepare.parse.values import Ints

__all__ = ["last_join", "separate_records"]

# A string, which is passed over; or the end of an object before the start of another. Outside of
# strings valid JSON has that between records only.
_STRING_OR_JOIN = re.compile(rb'"(?:[^"\\\n]|\\[^\n])*+"|\}[ \t]*(?=\{)')


def separate_records(data: bytes) -> tuple[bytes, Ints]:
    """The data with each record on a line of its own.

    Returns:
        The data, and the positions of the lines that were no lines before, rising.
    """
    if b"}{" not in data and b"} {" not in data and b"}\t{" not in data:
        return data, np.empty(0, np.int64)
    parts, joined, position, line = [], [], 0, 0
    for join in _joins(data):
        piece = data[position:join]
        line += piece.count(b"\n") + 1
        joined.append(line)
        parts.append(piece)
        position = join
    return b"\n".join([*parts, data[position:]]), np.array(joined, np.int64)


def last_join(data: bytes) -> int:
    """The position at which the last record of a line begins; 0 where there is only one."""
    return max(_joins(data), default=0)


def _joins(data: bytes) -> list[int]:
    """The positions at which a record begins right after another."""
    found = _STRING_OR_JOIN.finditer(data)
    return [one.end() for one in found if data[one.start()] == ord("}")]
