"""Artifact `shards`: events as rows, split, by partition; pairs of items from sessions.

`user_row` and `item_row` are dense rows of the vocabulary; `time` and `weight` as in `events`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from embedmill.schemas.contract import ArtifactContract, Count, Counters, Law
from embedmill.schemas.files import PartFiles

__all__ = ["CONTRACT", "FILES", "PAIR", "PAIRS", "SHARD", "SPLITS", "pairs_of"]

# Sorted by (hash, user_row, item_row, time). `hash` is a 64-bit hash of the event and the seed.
SHARD = pa.schema(
    [
        pa.field("user_row", pa.int64(), nullable=False),
        pa.field("item_row", pa.int64(), nullable=False),
        pa.field("time", pa.int64()),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("hash", pa.int64(), nullable=False),
    ]
)

# Sorted by (hash, center_row, context_row). `count` says how often the context is in a window of
# the center, over all sessions. Both directions are stored; `hash` is of the pair and the seed.
PAIR = pa.schema(
    [
        pa.field("center_row", pa.int64(), nullable=False),
        pa.field("context_row", pa.int64(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("hash", pa.int64(), nullable=False),
    ]
)

SPLITS = ("train", "valid", "test")
# Pairs from the sessions of train events, and of train and validation events; where
# `shards.pairs` asks for them.
PAIRS = ("pairs", "pairs_with_valid")
# File p holds partition p: events whose user_row, pairs whose center_row is p modulo
# `run.partitions`. Every partition has a file, even if it is empty.
FILES = {folder: PartFiles(folder) for folder in (*SPLITS, *PAIRS)}


def pairs_of(splits: Sequence[str]) -> str:
    """The folder of pairs from the sessions of these splits."""
    return PAIRS[0] if tuple(splits) == ("train",) else PAIRS[1]


def _status(c: Counters, n: Count) -> str:
    return f"{n(c['train'])} train, {n(c['valid'])} valid, {n(c['test'])} test"


def _pair_laws(folder: str, splits: tuple[str, ...]) -> tuple[Law, ...]:
    """Events of `splits` are used, thinned out or left out; each pair found is counted."""
    parts = tuple(f"{folder}_{name}" for name in ("events", "thinned_out", "shared_out"))
    return (
        Law(splits, parts, optional=True),
        Law((f"{folder}_found",), (f"{folder}_counted",), optional=True),
    )


CONTRACT = ArtifactContract(
    status=_status,
    tables={name: PAIR if name in PAIRS else SHARD for name in FILES},
    laws=(
        Law(("events_in",), (*SPLITS, "dropped")),
        *_pair_laws(PAIRS[0], ("train",)),
        *_pair_laws(PAIRS[1], ("train", "valid")),
    ),
    rows={name: name for name in FILES},
)
