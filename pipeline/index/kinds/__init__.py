"""The kinds of index by name. A new kind is one file here and a line in INDEXES."""

from __future__ import annotations

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.index.index_kind import IndexKind
from embedmill.pipeline.index.kinds.fastscan import FastScan
from embedmill.pipeline.index.kinds.flat import Flat
from embedmill.pipeline.index.kinds.hnsw import Hnsw
from embedmill.pipeline.index.kinds.hnswsq8 import HnswSq8
from embedmill.pipeline.index.kinds.ivfflat import IvfFlat
from embedmill.pipeline.index.kinds.ivfpq import IvfPq
from embedmill.pipeline.index.kinds.ivfsq8 import IvfSq8
from embedmill.pipeline.index.kinds.opqivfpq import OpqIvfPq

__all__ = ["AUTO", "INDEXES", "kind_of"]

# Not a kind: select the fastest among all kinds that meet the targets.
AUTO = "auto"


def kind_of(name: str) -> IndexKind:
    """The kind of this name.

    Raises:
        ConfigError: there is no such kind; the message lists those there are.
    """
    if name not in INDEXES:
        raise ConfigError(f"index.kind: no index '{name}'; allowed: {', '.join((AUTO, *INDEXES))}")
    return INDEXES[name]


INDEXES: dict[str, IndexKind] = {
    "flat": Flat(),
    "fastscan": FastScan(),
    "hnsw": Hnsw(),
    "hnswsq8": HnswSq8(),
    "ivfflat": IvfFlat(),
    "ivfsq8": IvfSq8(),
    "ivfpq": IvfPq(),
    "opqivfpq": OpqIvfPq(),
}
