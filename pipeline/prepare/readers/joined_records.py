"""JSON records that follow each other without a newline, as Amazon Data Firehose writes them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from embedmill.pipeline.prepare.parse.values import Ints
from embedmill.pipeline.prepare.readers.line_batch import LineBatch

__all__ = ["last_join", "separate_lines", "separate_records"]

# A string, which is passed over, also where the data ends in it; or the end of an object before
# the start of another. Outside of strings valid JSON has that between records only.
_STRING_OR_JOIN = re.compile(rb'"(?:[^"\\\n]|\\[^\n])*+(?:"|\\?\Z)|\}[ \t]*(?=\{)')
_JOIN = re.compile(rb"\}[ \t]*\{")  # or a string that has this


def separate_lines(batch: LineBatch) -> LineBatch:
    """The batch with each record on a line of its own."""
    data, joined = separate_records(batch.data)
    if not len(joined):
        return batch
    size = batch.size + len(joined)
    whole = np.setdiff1d(np.arange(size), joined)  # where the lines begin
    before = np.searchsorted(batch.joined, np.arange(batch.size), side="right")
    joined = np.union1d(joined, whole[np.flatnonzero(np.diff(before, prepend=0))])
    return replace(batch, data=data, size=size, bad=whole[batch.bad], joined=joined)


def separate_records(data: bytes) -> tuple[bytes, Ints]:
    """The data with each record on a line of its own.

    Returns:
        The data, and the positions of the lines that were no lines before, rising.
    """
    if not _JOIN.search(data):
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
