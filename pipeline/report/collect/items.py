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

from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.vectors import Spec

__all__ = [
    "NEIGHBOURS",
    "WELL_KNOWN",
    "Block",
    "Catalogue",
    "describe",
    "extremes",
    "metadata",
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
    """Some rows [N]: ids, counts [N], vectors [N, D], biases [N] or None."""

    rows: npt.NDArray[np.int64]
    ids: pa.Array
    counts: npt.NDArray[np.int64]
    vectors_ND: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None

    def at(self, places: Sequence[int] | npt.NDArray[np.int64]) -> Block:
        """The rows at some places of this block, in that order."""
        chosen = np.asarray(places, np.int64)
        bias = None if self.bias is None else self.bias[chosen]
        ids = self.ids.take(pa.array(chosen))
        return Block(self.rows[chosen], ids, self.counts[chosen], self.vectors_ND[chosen], bias)

    @staticmethod
    def empty(catalogue: Catalogue) -> Block:
        """No rows of a catalogue."""
        none, vectors_ND = np.empty(0, np.int64), np.empty((0, catalogue.dim), np.float32)
        bias = np.empty(0, np.float32) if catalogue.has_bias else None
        return Block(none, pa.array([], pa.string()), none, vectors_ND, bias)

    @staticmethod
    def joined(parts: Sequence[Block]) -> Block:
        """Blocks, at least one, as one."""
        ids = pa.concat_arrays([b.ids for b in parts])
        rows, counts, vectors_ND = (
            np.concatenate([getattr(b, name) for b in parts])
            for name in ("rows", "counts", "vectors_ND")
        )
        biases = [b.bias for b in parts if b.bias is not None]
        return Block(rows, ids, counts, vectors_ND, np.concatenate(biases) if biases else None)


@dataclass(frozen=True)
class Catalogue:
    """The items of a run: vectors from `export`, titles from `events` where it has them."""

    export: Artifact
    events: Artifact
    dim: int
    has_bias: bool

    def blocks(self, *, vectors: bool = True) -> Iterator[Block]:
        """All live items by row; without `vectors` their D is 0."""
        for entry in self.export.files("items"):
            yield from self._blocks_of(entry.path, vectors=vectors)

    def _blocks_of(self, path: str, *, vectors: bool) -> Iterator[Block]:
        columns = ["row", "id", "count", "live", *(["vector"] if vectors else [])]
        columns += ["bias"] if self.has_bias else []
        for batch in self.export.batches(path, _BLOCK_ROWS, columns):
            yield self._block(batch.filter(batch.column("live")))

    def _block(self, batch: pa.RecordBatch) -> Block:
        vectors = np.empty((batch.num_rows, 0), np.float32)
        if "vector" in batch.schema.names:
            flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            vectors = flat.reshape(batch.num_rows, -1)[:, : self.dim]
        bias = batch.column("bias").to_numpy(zero_copy_only=False) if self.has_bias else None
        rows, counts = (batch.column(c).to_numpy(zero_copy_only=False) for c in ("row", "count"))
        return Block(rows, batch.column("id"), counts, vectors, bias)

    def first(self, n: int) -> Block:
        """The `n` most frequent items, equal ones by lower row."""
        best = np.empty((0, 2), np.int64)  # (-count, row)
        for entry in self.export.files("items"):
            for batch in self.export.batches(entry.path, _BLOCK_ROWS, ["row", "count", "live"]):
                live = batch.filter(batch.column("live"))
                count_N, row_N = (live.column(c).to_numpy() for c in ("count", "row"))
                both = np.concatenate((best, np.stack((-count_N, row_N), 1)))
                best = both[np.lexsort((both[:, 1], both[:, 0]))[:n]]
        return self.of(best[:, 1].tolist())

    def of(self, rows: Sequence[int]) -> Block:
        """These rows, distinct and live, in this order; only files that hold some are opened."""
        wanted, first = np.sort(np.array(rows, np.int64)), 0
        parts = [Block.empty(self)]
        for entry in self.export.files("items"):
            end = first + (entry.rows or 0)
            if np.searchsorted(wanted, first) < np.searchsorted(wanted, end):
                blocks = self._blocks_of(entry.path, vectors=True)
                parts += [b.at(np.flatnonzero(np.isin(b.rows, wanted))) for b in blocks]
            first = end
        # Files are in order of rows, and so is what was found in them.
        return Block.joined(parts).at(np.searchsorted(wanted, rows))

    def metadata(self, ids: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
        """Title and categories of those of `ids` that have any."""
        return metadata(self.events, ids)

    def ids_titled(self, titles: Sequence[str]) -> dict[str, list[str]]:
        """Title as asked → ids of the items that bear it; case does not matter."""
        bearers: dict[str, list[str]] = {t.casefold(): [] for t in titles}
        for batch in _metadata_batches(self.events):
            columns = batch.select(["item", "title"]).to_pydict()
            for one, title in zip(columns["item"], columns["title"], strict=True):
                if title.casefold() in bearers:
                    bearers[title.casefold()].append(one)
        return {t: bearers[t.casefold()] for t in titles}


def metadata(events: Artifact, ids: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
    """Title and categories of those of `ids` that have any."""
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, tuple[str, list[str]]] = {}
    for batch in _metadata_batches(events):
        for row in batch.filter(pc.is_in(batch.column("item"), wanted)).to_pylist():
            found.setdefault(row["item"], (row["title"], row["categories"] or []))
    return found


def _metadata_batches(events: Artifact) -> Iterator[pa.RecordBatch]:
    if events.has("items.parquet"):
        yield from events.batches("items.parquet", _BLOCK_ROWS)


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
        kept += [(int(block.rows[r]), round(float(block.bias[r]), 4)) for r in rows]
        kept.sort(key=lambda pair: (-pair[1], pair[0]))
        if len(kept) > 2 * EXTREMES:
            kept = kept[:EXTREMES] + kept[-EXTREMES:]
    return kept


def _resolve(catalogue: Catalogue, asked: Sequence[str]) -> tuple[list[int], list[str]]:
    """Rows of what was asked for (the most frequent item of a title), and what is not there."""
    if not asked:
        return catalogue.first(WELL_KNOWN).rows.tolist(), []
    bearers = {name: [name, *ids] for name, ids in catalogue.ids_titled(asked).items()}
    wanted = pa.array(sorted({one for ids in bearers.values() for one in ids}), pa.string())
    place_of: dict[str, tuple[int, int]] = {}
    for block in catalogue.blocks(vectors=False):
        for i in np.flatnonzero(pc.is_in(block.ids, wanted).to_numpy(zero_copy_only=False)):
            place_of[block.ids[int(i)].as_py()] = (-int(block.counts[i]), int(block.rows[i]))
    rows = {
        name: min(place_of[one] for one in ids if one in place_of)[1]
        for name, ids in bearers.items()
        if any(one in place_of for one in ids)
    }
    found = list(dict.fromkeys(rows[name] for name in asked if name in rows))
    return found, [name for name in dict.fromkeys(asked) if name not in rows]


def _nearest(catalogue: Catalogue, rows: Sequence[int]) -> list[list[tuple[int, float]]]:
    """For each row its neighbours as (row, cosine), best first, ties by lower row."""
    best: list[list[tuple[int, float]]] = [[] for _ in rows]
    if not rows:
        return best
    queries_QD = _unit(catalogue.of(rows).vectors_ND)
    for block in catalogue.blocks():
        if not len(block.rows):
            continue
        # Rounded before comparing, so that the order does not hang on the last bits of BLAS.
        scores_QN = np.round(queries_QD @ _unit(block.vectors_ND).T, 6)
        for q, row in enumerate(rows):
            scores_QN[q, block.rows == row] = -np.inf
            best[q] = _merge(best[q], scores_QN[q], block.rows)
    return [[(row, round(score, 4)) for row, score in found] for found in best]


def _merge(
    best: list[tuple[int, float]], scores: Floats, rows: npt.NDArray[np.int64]
) -> list[tuple[int, float]]:
    k = min(NEIGHBOURS, len(scores))
    floor = np.partition(scores, len(scores) - k)[len(scores) - k]
    new = [(int(rows[i]), float(scores[i])) for i in np.flatnonzero(scores >= floor)]
    kept = sorted(best + new, key=lambda pair: (-pair[1], pair[0]))
    return [pair for pair in kept if np.isfinite(pair[1])][:NEIGHBOURS]


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
        for i in np.flatnonzero(np.isin(block.rows, list(rows))).tolist():
            bare[int(block.rows[i])] = (block.ids[i].as_py(), int(block.counts[i]))
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
