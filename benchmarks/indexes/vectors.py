"""The sets: vectors, and queries that are not among them, some to tune and some to test with.

Legend: N vectors, B queries, D coordinates.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness.line import run
from harness.public_sets import fashion_mnist as fashion_mnist_file
from harness.sets import load_set, write_config
from numpy.typing import NDArray

from embedmill.pipeline.store.datasets import resolve
from embedmill.pipeline.store.run import open_run
from embedmill.pipeline.views.vectors import Vectors

Floats = NDArray[np.float32]

# Queries. Between tuning and verification ours parts its own in halves.
TUNING, TEST = 8000, 2000
QUERIES = TUNING + TEST


@dataclass(frozen=True)
class Set:
    """float32 [N, D] and both parts of the queries [B, D]; nearness is the inner product."""

    vector_ND: Floats
    tuning_BD: Floats
    test_BD: Floats


@dataclass(frozen=True)
class Source:
    """What `--vectors` and `--keep` said."""

    vectors: str
    keep: Path


def gowalla(source: Source) -> Set:
    """Places by their trained vectors, asked by users'."""
    folder = source.vectors or _trained(source.keep)
    export = open_run(folder).artifact("export")
    places, users = (Vectors.of(export, side).load() for side in ("items", "users"))
    chosen = np.random.default_rng(1).permutation(len(users))[:QUERIES]
    return _parted(places, users[chosen])


def _trained(keep: Path) -> str:
    """The tuned run of the set gowalla below `keep`, trained where it is not there yet."""
    one = load_set("gowalla")
    config = keep / "gowalla-index.toml"
    write_config(config, one.tree("softmax"), one.raw(), "gowalla-index")
    run(config, ["train.refit=false"], last="export")
    return str(keep / "gowalla-index")


def glove(source: Source) -> Set:
    """400,000 words (GloVe 6B, 50 coordinates) by angle; the queries are taken out of them."""
    word_ND = np.load(resolve("dataset:glove/vectors.npy"), allow_pickle=False)
    word_ND = _unit(word_ND.astype(np.float32))
    order = np.random.default_rng(1).permutation(len(word_ND))
    queries, rest = order[:QUERIES], np.sort(order[QUERIES:])
    return _parted(word_ND[rest], word_ND[queries])


def fashion_mnist(source: Source) -> Set:
    """60,000 images of the train part by angle, asked by those of the test part."""
    train_ND, test_ND = (
        _unit(_images(f"{part}-images-idx3-ubyte.gz")) for part in ("train", "t10k")
    )
    chosen = np.random.default_rng(1).permutation(len(test_ND))[:QUERIES]
    return _parted(train_ND, test_ND[chosen])


def _images(name: str) -> Floats:
    """Images of an IDX file (format: magic 0x803, count, rows, columns, bytes), float32 [N, D]."""
    with gzip.open(fashion_mnist_file(name), "rb") as raw:
        data = raw.read()
    magic, count, rows, columns = np.frombuffer(data, ">i4", 4)
    assert magic == 0x803
    return (
        np.frombuffer(data, np.uint8, offset=16).reshape(count, rows * columns).astype(np.float32)
    )


SYNTHETIC, WIDE, CENTRES = 2_000_000, 32, 20_000


def synthetic(source: Source) -> Set:
    """Clusters of unequal size on the unit sphere: the r-th in proportion to r ** -0.5."""
    draw = np.random.default_rng(1)
    centre = _unit(draw.standard_normal((CENTRES, WIDE), np.float32))
    share = np.arange(1, CENTRES + 1) ** -0.5
    total = SYNTHETIC + QUERIES
    own = draw.choice(CENTRES, total, p=share / share.sum())
    vector_ND = 0.1 * draw.standard_normal((total, WIDE), np.float32)
    vector_ND += centre[own]
    vector_ND = _unit(vector_ND)
    return _parted(vector_ND[QUERIES:], vector_ND[:QUERIES])


def _unit(vector_ND: Floats) -> Floats:
    """Of length 1; vectors of zero stay."""
    length = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    return np.ascontiguousarray(vector_ND / np.where(length > 0, length, 1), np.float32)


def _parted(vector_ND: Floats, query_BD: Floats) -> Set:
    parts = vector_ND, query_BD[:-TEST], query_BD[-TEST:]
    return Set(*(np.ascontiguousarray(part) for part in parts))


@dataclass(frozen=True)
class Known:
    """How a set is made, and the bytes that an index of it may take."""

    load: Callable[[Source], Set]
    budget: int


SETS: dict[str, Known] = {
    "gowalla": Known(gowalla, 25_000_000),
    "glove": Known(glove, 150_000_000),
    "fashion-mnist": Known(fashion_mnist, 250_000_000),
    "synthetic": Known(synthetic, 750_000_000),
}
