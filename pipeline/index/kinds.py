"""The kinds of index by name. A new one is a file and its line here."""

from __future__ import annotations

from pipeline.errors import ConfigError
from pipeline.index.contract import Index
from pipeline.index.flat import Flat
from pipeline.index.hnsw import Hnsw
from pipeline.index.ivfpq import IvfPq

__all__ = ["INDEXES", "kind_of"]


def kind_of(name: str) -> type[Index]:
    """The class of a kind.

    Raises:
        ConfigError: there is no such kind; names those there are.
    """
    if name not in INDEXES:
        raise ConfigError(f"index.kind: no index '{name}'; allowed: {', '.join(INDEXES)}")
    return INDEXES[name]


INDEXES: dict[str, type[Index]] = {
    "flat": Flat,
    "hnsw": Hnsw,
    "ivfpq": IvfPq,
}
