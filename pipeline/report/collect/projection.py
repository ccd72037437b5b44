"""The map of items: principal components and colours of categories.

Principal component analysis after Pearson (1901), by the eigenvectors of the covariance.
Legend: N items, D dimensions, K components (2, or D where that is less).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.report.collect.item_vectors import ItemVectors, describe
from embedmill.schemas.report import Item, ItemMap, MapPoint

__all__ = ["CATEGORIES", "principal_components", "project"]

CATEGORIES = 6  # that have a colour of their own; all others share one more

Floats = npt.NDArray[np.float64]


def project(items: ItemVectors, most: int) -> ItemMap:
    """The `most` frequent items in two dimensions; coordinates have four decimals."""
    block = items.most_frequent(most)
    xy_N2, variance = principal_components(block.vector_ND)
    ids = block.ids.to_pylist()
    metadata = items.metadata.describe(ids)
    rows_and_counts = zip(block.row_N.tolist(), ids, block.count_N.tolist(), strict=True)
    shown = [describe(row, raw_id, count, metadata) for row, raw_id, count in rows_and_counts]
    names = _coloured(shown)
    points = [
        MapPoint(
            **item.as_json(),
            x=round(float(x), 4),
            y=round(float(y), 4),
            category=_colour(item.categories, names),
        )
        for item, (x, y) in zip(shown, _stretched(xy_N2), strict=True)
    ]
    return ItemMap(variance=variance, categories=names, points=points)


def principal_components(vectors_ND: npt.NDArray[Any]) -> tuple[Floats, tuple[float, float]]:
    """Coordinates [N, 2] on the first two components, and their shares of the variance.

    The sign of each component makes its largest loading positive, so that the map does not
    flip between runs. With fewer than two items or dimensions the rest is zero.
    """
    n = len(vectors_ND)
    if n < 2:
        return np.zeros((n, 2)), (0.0, 0.0)
    centred_ND = vectors_ND.astype(np.float64) - vectors_ND.mean(axis=0, dtype=np.float64)
    values_D, axes_DD = np.linalg.eigh(centred_ND.T @ centred_ND)
    axes_DK = axes_DD[:, ::-1][:, :2]
    largest_K = np.abs(axes_DK).argmax(axis=0)
    axes_DK = axes_DK * np.where(axes_DK[largest_K, range(axes_DK.shape[1])] < 0, -1.0, 1.0)
    shares = values_D[::-1][:2].clip(min=0) / max(values_D.clip(min=0).sum(), 1e-300)
    xy_N2 = np.zeros((n, 2))
    xy_N2[:, : axes_DK.shape[1]] = centred_ND @ axes_DK
    first, second = (round(float(share), 4) for share in (*shares, 0.0)[:2])
    return xy_N2, (first, second)


def _stretched(xy_N2: Floats) -> Floats:
    """Each axis stretched to [0, 1]; the coordinates of an axis without extent become 0.5."""
    if not len(xy_N2):
        return xy_N2
    low_2, high_2 = xy_N2.min(axis=0), xy_N2.max(axis=0)
    extent_2 = high_2 - low_2
    flat_2 = extent_2 <= 1e-12
    return np.where(flat_2, 0.5, (xy_N2 - low_2) / np.where(flat_2, 1.0, extent_2))


def _coloured(items: Sequence[Item]) -> list[str]:
    """The categories that are the first one of most items."""
    counts: dict[str, int] = {}
    for item in items:
        for name in item.categories[:1]:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: (-counts[name], name))[:CATEGORIES]


def _colour(categories: Sequence[str], names: Sequence[str]) -> int | None:
    if not names:
        return None
    return names.index(categories[0]) if categories and categories[0] in names else CATEGORIES
