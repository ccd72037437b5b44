"""Items of highest and lowest bias, for models of ratings."""

from __future__ import annotations

import numpy as np

from embedmill.pipeline.report.collect.item_vectors import ItemVectors, describe_rows
from embedmill.schemas.report import BiasedItem, BiasExtremes, Item

__all__ = ["EXTREMES", "extreme_biases"]

EXTREMES = 8  # items of either kind
_LEAST_COUNTS = (50, 20, 10, 5, 1)  # events that an item must have, the first that fills both lists


def extreme_biases(items: ItemVectors) -> BiasExtremes | None:
    """Items of highest and lowest bias, or None where the model has no biases.

    Only items with enough events count: at least 50, or the first of 20, 10, 5 and 1 that leaves
    enough items to fill both lists.
    """
    if not items.has_bias:
        return None
    enough = dict.fromkeys(_LEAST_COUNTS, 0)
    for block in items.blocks(vectors=False):
        for least in _LEAST_COUNTS:
            enough[least] += int((block.count_N >= least).sum())
    least = next((c for c in _LEAST_COUNTS if enough[c] >= 2 * EXTREMES), _LEAST_COUNTS[-1])
    ranked = _ranked(items, least)
    half = min(EXTREMES, len(ranked) // 2) or len(ranked)
    best, worst = ranked[:half], ranked[::-1][:half] if len(ranked) > 1 else []
    described = describe_rows(items, {row for row, _ in best + worst})
    return BiasExtremes(
        least_count=least,
        items=enough[least],
        best=[_with_bias(described[row], bias) for row, bias in best],
        worst=[_with_bias(described[row], bias) for row, bias in worst],
    )


def _with_bias(item: Item, bias: float) -> BiasedItem:
    return BiasedItem(**item.as_json(), bias=bias)


def _ranked(items: ItemVectors, least: int) -> list[tuple[int, float]]:
    """(row, bias) of the items of highest and of lowest bias, highest first."""
    ranked: list[tuple[int, float]] = []
    for block in items.blocks(vectors=False):
        assert block.bias_N is not None
        at = np.flatnonzero(block.count_N >= least)
        if len(at) > 2 * EXTREMES:
            order = np.argsort(-block.bias_N[at], kind="stable")
            at = at[np.concatenate((order[:EXTREMES], order[-EXTREMES:]))]
        ranked += [(int(block.row_N[i]), round(float(block.bias_N[i]), 4)) for i in at]
        ranked.sort(key=lambda pair: (-pair[1], pair[0]))
        if len(ranked) > 2 * EXTREMES:
            ranked = ranked[:EXTREMES] + ranked[-EXTREMES:]
    return ranked
