"""The kinds of index by name. A new one is a file and its line here."""

from __future__ import annotations

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.index.contract import Index
from embedmill.pipeline.index.kinds.fastscan import FastScan
from embedmill.pipeline.index.kinds.flat import Flat
from embedmill.pipeline.index.kinds.hnsw import Hnsw
from embedmill.pipeline.index.kinds.hnswsq8 import HnswSq8
from embedmill.pipeline.index.kinds.ivfflat import IvfFlat
from embedmill.pipeline.index.kinds.ivfpq import IvfPq
from embedmill.pipeline.index.kinds.ivfsq8 import IvfSq8
from embedmill.pipeline.index.kinds.opqivfpq import OpqIvfPq

__all__ = ["AUTO", "INDEXES", "check_kind", "kind_of"]

# Not a kind: the one among all that keeps the promise.
AUTO = "auto"


def check_kind(name: str) -> None:
    """Raise ConfigError unless there is such a kind, or it is left open."""
    if name != AUTO:
        kind_of(name)


def kind_of(name: str) -> type[Index]:
    """The class of a kind.

    Raises:
        ConfigError: there is no such kind; names those there are.
    """
    if name not in INDEXES:
        raise ConfigError(f"index.kind: no index '{name}'; allowed: {', '.join((AUTO, *INDEXES))}")
    return INDEXES[name]


INDEXES: dict[str, type[Index]] = {
    "flat": Flat,
    "fastscan": FastScan,
    "hnsw": Hnsw,
    "hnswsq8": HnswSq8,
    "ivfflat": IvfFlat,
    "ivfsq8": IvfSq8,
    "ivfpq": IvfPq,
    "opqivfpq": OpqIvfPq,
}
