"""Items and their neighbours, read from `export` in blocks: memory is flat in the catalogue.

Legend: N items of a block, Q items asked for, D dimensions of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.artifact import Artifact
from pipeline.embeddings import Spec
from pipeline.run import Run

__all__ = [
    "NEIGHBOURS",
    "WELL_KNOWN",
    "Block",
    "Catalogue",
    "describe",
    "extremes",
    "neighbours",
    "open_catalogue",
]

NEIGHBOURS = 5  # shown per item
WELL_KNOWN = 12  # items shown where the config names none
EXTREMES = 8  # best and worst items by bias
_COUNTS = (50, 20, 10, 5, 1)  # least events of an item to be called best or worst
_BLOCK_ROWS = 1 << 16

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """Rows `start`, `start + 1`, …: ids, counts [N], vectors [N, D], biases [N] or None."""

    start: int
    ids: pa.Array
    counts: npt.NDArray[np.int64]
    vectors_ND: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Catalogue:
    """The items of a run: vectors from `export`, titles from `events` where it has them."""

    export: Artifact
    events: Artifact
    dim: int
    has_bias: bool

    def blocks(self, *, vectors: bool = True) -> Iterator[Block]:
        """All items by row, which is by falling count; without `vectors` their D is 0."""
        start = 0
        columns = ["id", "count", *(["vector"] if vectors else [])]
        columns += ["bias"] if self.has_bias else []
        for entry in self.export.files("items"):
            for batch in self.export.batches(entry.path, _BLOCK_ROWS, columns):
                yield self._block(start, batch)
                start += batch.num_rows

    def _block(self, start: int, batch: pa.RecordBatch) -> Block:
        vectors = np.empty((batch.num_rows, 0), np.float32)
        if "vector" in batch.schema.names:
            flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            vectors = flat.reshape(batch.num_rows, -1)[:, : self.dim]
        bias = batch.column("bias").to_numpy(zero_copy_only=False) if self.has_bias else None
        counts = batch.column("count").to_numpy(zero_copy_only=False)
        return Block(start, batch.column("id"), counts, vectors, bias)

    def first(self, n: int) -> list[Block]:
        """The `n` most frequent items."""
        found: list[Block] = []
        for block in self.blocks():
            keep = n - block.start
            bias = None if block.bias is None else block.bias[:keep]
            ids, counts = block.ids[:keep], block.counts[:keep]
            found.append(Block(block.start, ids, counts, block.vectors_ND[:keep], bias))
            if keep <= len(block.ids):
                break
        return found

    def metadata(self, ids: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
        """Title and categories of those of `ids` that have any."""
        wanted = pa.array(sorted(set(ids)), pa.string())
        found: dict[str, tuple[str, list[str]]] = {}
        for batch in self._metadata_batches():
            for row in batch.filter(pc.is_in(batch.column("item"), wanted)).to_pylist():
                found.setdefault(row["item"], (row["title"], row["categories"] or []))
        return found

    def ids_titled(self, titles: Sequence[str]) -> dict[str, list[str]]:
        """Title as asked → ids of the items that bear it; case does not matter."""
        bearers: dict[str, list[str]] = {t.casefold(): [] for t in titles}
        for batch in self._metadata_batches():
            columns = batch.select(["item", "title"]).to_pydict()
            for one, title in zip(columns["item"], columns["title"], strict=True):
                if title.casefold() in bearers:
                    bearers[title.casefold()].append(one)
        return {t: bearers[t.casefold()] for t in titles}

    def _metadata_batches(self) -> Iterator[pa.RecordBatch]:
        if self.events.has("items.parquet"):
            yield from self.events.batches("items.parquet", _BLOCK_ROWS)


def open_catalogue(run: Run) -> Catalogue:
    """The items of a run whose `export` has finished."""
    export = run.artifact("export")
    spec = Spec.of(export)
    # Best and worst are for ratings: a softmax's bias says how frequent an item is.
    rated = spec.bias and spec.objective == "rating"
    return Catalogue(export, run.artifact("events"), spec.model_dim, rated)


def neighbours(catalogue: Catalogue, asked: Sequence[str]) -> dict[str, Any]:
    """Nearest items by cosine, exact over the whole catalogue, of well-known items.

    Args:
        catalogue: where to look.
        asked: titles or ids; empty for the most frequent items.

    Returns:
        {"of": [{item, "near": [{item, "cosine"}]}], "not_found": [name]}, in the order asked.
    """
    rows, missing = _resolve(catalogue, asked)
    near = _nearest(catalogue, rows)
    described = _describe(catalogue, {*rows, *(row for found in near for row, _ in found)})
    return {
        "of": [
            described[row] | {"near": [described[r] | {"cosine": cosine} for r, cosine in found]}
            for row, found in zip(rows, near, strict=True)
        ],
        "not_found": missing,
    }


def extremes(catalogue: Catalogue) -> dict[str, Any] | None:
    """Items of highest and lowest bias, or None where the model has no biases.

    Only items with enough events count: the most of 50, 20, 10, 5 or 1 events that leaves
    enough items to fill both lists.
    """
    if not catalogue.has_bias:
        return None
    enough = dict.fromkeys(_COUNTS, 0)
    for block in catalogue.blocks(vectors=False):
        for least in _COUNTS:
            enough[least] += int((block.counts >= least).sum())
    least = next((c for c in _COUNTS if enough[c] >= 2 * EXTREMES), _COUNTS[-1])
    ranked = _by_bias(catalogue, least)
    half = min(EXTREMES, len(ranked) // 2) or len(ranked)
    best, worst = ranked[:half], ranked[::-1][:half] if len(ranked) > 1 else []
    described = _describe(catalogue, {row for row, _ in best + worst})
    return {
        "least_count": least,
        "items": enough[least],
        "best": [described[row] | {"bias": bias} for row, bias in best],
        "worst": [described[row] | {"bias": bias} for row, bias in worst],
    }


def _by_bias(catalogue: Catalogue, least: int) -> list[tuple[int, float]]:
    """The few rows of highest and of lowest bias, highest first."""
    kept: list[tuple[int, float]] = []
    for block in catalogue.blocks(vectors=False):
        assert block.bias is not None
        rows = np.flatnonzero(block.counts >= least)
        if len(rows) > 2 * EXTREMES:
            order = np.argsort(-block.bias[rows], kind="stable")
            rows = rows[np.concatenate((order[:EXTREMES], order[-EXTREMES:]))]
        kept += [(block.start + int(r), round(float(block.bias[r]), 4)) for r in rows]
        kept.sort(key=lambda pair: (-pair[1], pair[0]))
        if len(kept) > 2 * EXTREMES:
            kept = kept[:EXTREMES] + kept[-EXTREMES:]
    return kept


def _resolve(catalogue: Catalogue, asked: Sequence[str]) -> tuple[list[int], list[str]]:
    """Rows of what was asked for (the most frequent item of a title), and what is not there."""
    if not asked:
        return [b.start + i for b in catalogue.first(WELL_KNOWN) for i in range(len(b.ids))], []
    bearers = {name: [name, *ids] for name, ids in catalogue.ids_titled(asked).items()}
    wanted = pa.array(sorted({one for ids in bearers.values() for one in ids}), pa.string())
    row_of: dict[str, int] = {}
    for block in catalogue.blocks(vectors=False):
        for i in np.flatnonzero(pc.is_in(block.ids, wanted).to_numpy(zero_copy_only=False)):
            row_of[block.ids[int(i)].as_py()] = block.start + int(i)
    rows = {
        name: min(row_of[one] for one in ids if one in row_of)
        for name, ids in bearers.items()
        if any(one in row_of for one in ids)
    }
    found = list(dict.fromkeys(rows[name] for name in asked if name in rows))
    return found, [name for name in dict.fromkeys(asked) if name not in rows]


def _nearest(catalogue: Catalogue, rows: Sequence[int]) -> list[list[tuple[int, float]]]:
    """For each row its neighbours as (row, cosine), best first, ties by lower row."""
    queries_QD = _unit(_vectors(catalogue, rows))
    best: list[list[tuple[int, float]]] = [[] for _ in rows]
    if not rows:
        return best
    for block in catalogue.blocks():
        # Rounded before comparing, so that the order does not hang on the last bits of BLAS.
        scores_QN = np.round(queries_QD @ _unit(block.vectors_ND).T, 6)
        for q, row in enumerate(rows):
            inside = row - block.start
            if 0 <= inside < len(block.ids):
                scores_QN[q, inside] = -np.inf
            best[q] = _merge(best[q], scores_QN[q], block.start)
    return [[(row, round(score, 4)) for row, score in found] for found in best]


def _merge(best: list[tuple[int, float]], scores: Floats, start: int) -> list[tuple[int, float]]:
    k = min(NEIGHBOURS, len(scores))
    floor = np.partition(scores, len(scores) - k)[len(scores) - k]
    new = [(start + int(i), float(scores[i])) for i in np.flatnonzero(scores >= floor)]
    kept = sorted(best + new, key=lambda pair: (-pair[1], pair[0]))
    return [pair for pair in kept if np.isfinite(pair[1])][:NEIGHBOURS]


def _vectors(catalogue: Catalogue, rows: Sequence[int]) -> npt.NDArray[np.float32]:
    found = np.zeros((len(rows), catalogue.dim), np.float32)
    for block in catalogue.blocks():
        for q, row in enumerate(rows):
            if 0 <= row - block.start < len(block.ids):
                found[q] = block.vectors_ND[row - block.start]
        if rows and block.start + len(block.ids) > max(rows):
            break
    return found


def _unit(vectors_ND: npt.NDArray[np.float32]) -> Floats:
    """Rows of length 1; a zero row stays zero, its cosine with anything is 0."""
    wide = vectors_ND.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Floats = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return unit


def _describe(catalogue: Catalogue, rows: set[int]) -> dict[int, dict[str, Any]]:
    """Row → {row, id, count, title, categories}; the title is the id where there is none."""
    bare: dict[int, tuple[str, int]] = {}
    for block in catalogue.blocks(vectors=False):
        for row in rows:
            i = row - block.start
            if 0 <= i < len(block.ids):
                bare[row] = (block.ids[i].as_py(), int(block.counts[i]))
        if len(bare) == len(rows):
            break
    metadata = catalogue.metadata(one for one, _ in bare.values())
    return {row: describe(row, one, count, metadata) for row, (one, count) in bare.items()}


def describe(
    row: int, raw_id: str, count: int, metadata: dict[str, tuple[str, list[str]]]
) -> dict[str, Any]:
    """An item as the page and `data.json` know it."""
    title, categories = metadata.get(raw_id, ("", []))
    return {
        "row": row,
        "id": raw_id,
        "count": count,
        "title": title or raw_id,
        "categories": categories,
    }
