"""Which files of items go to which shard."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import numpy as np

from embedmill.pipeline.views.vectors import LiveFile

__all__ = ["group_files"]


def group_files(files: Sequence[LiveFile], count: int) -> list[tuple[LiveFile, ...]]:
    """Split the files into at most `count` runs of about as many items each; pure."""
    ends = np.cumsum([file.items for file in files]).tolist()
    total = ends[-1] if ends else 0
    cuts = [bisect.bisect_left(ends, total * cut / count) + 1 for cut in range(1, count)]
    bounds = sorted({0, *(min(cut, len(files)) for cut in cuts), len(files)})
    return [tuple(files[a:b]) for a, b in itertools.pairwise(bounds)]
