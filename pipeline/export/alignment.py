"""One space from night to night: vectors rotated onto those of an earlier run.

A training finds vectors up to a rotation: inner products do not depend on it, but downstream
models and stored vectors do. The orthogonal matrix R that brings X nearest to Y, the vectors of the
same ids before, is U V' of the singular value decomposition of X'Y (Schönemann 1966, "A generalized
solution of the orthogonal Procrustes problem"). Ids weigh by their events, and both sides alike.
Users and items are multiplied by the same R, so that inner products stay what they are.

Legend: N rows of a block, D coordinates of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.errors import ConfigError, EmbedmillError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.views.earlier_run import PUBLISHED, earlier_folder, earlier_rows
from embedmill.pipeline.views.vectors import Vectors, new_space, space_of, spec_of
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.export import FILES, Space, VectorSpec

__all__ = ["Alignment", "align", "find_earlier", "sources", "why_unaligned"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
# vectors(side): (first row, vectors [N, D] or more columns, events [N]) of all rows, in order.
Blocks = Callable[[str], Iterator[tuple[int, Floats, NDArray[np.int64]]]]

_SOURCE = "export.align"


@dataclass(frozen=True)
class Alignment:
    """The space of the vectors, and the matrix float64 [D, D] that brings them there, if any."""

    space: Space
    rotation_DD: Doubles | None = None

    def apply(self, vector_NE: Floats) -> Floats:
        """Rotate the model's coordinates; one for biases stays."""
        if self.rotation_DD is None:
            return vector_NE
        dim = len(self.rotation_DD)
        rotated_ND = (vector_NE[:, :dim].astype(np.float64) @ self.rotation_DD).astype(np.float32)
        return np.concatenate((rotated_ND, vector_NE[:, dim:]), axis=1)


def find_earlier(run: Run) -> Artifact | None:
    """The vectors that `export.align` names, or `train.start` where it is not given; None for none.

    "published" names none where nothing was published.

    Raises:
        ConfigError: a run that is named has no vectors.
    """
    folder, found = _earlier(run)
    if not isinstance(found, EmbedmillError):
        return found
    if _named(run) == PUBLISHED or run.config.export.align is None:
        return None
    raise ConfigError(
        f"vectors cannot be aligned to {folder}: {found.what}",
        where="export.align",
        todo="Name another run, or set export.align = ''",
    )


def why_unaligned(run: Run) -> str:
    """Why vectors are not aligned, though a run is named: it has none; "" otherwise."""
    folder, found = _earlier(run)
    if isinstance(found, EmbedmillError):
        return f"{folder} has no vectors to align to: {found.what}"
    return ""


def _earlier(run: Run) -> tuple[str, Artifact | EmbedmillError | None]:
    """The folder of the run that is named, and its vectors or why it has none; None: no run."""
    folder = earlier_folder(run, _named(run))
    if not folder or folder.rstrip("/") == run.storage.root.rstrip("/"):
        return folder, None
    try:
        return folder, open_run(folder).artifact("export")
    except EmbedmillError as error:
        return folder, error


def sources(run: Run) -> Mapping[str, Any]:
    """The content of the vectors to align to, for the fingerprint of the stage.

    A finished stage keeps what it was built from where that was the published run, or is gone.
    """
    name = _named(run)
    if not name:
        return {}
    manifest = run.manifest("export")
    if manifest is not None and name == PUBLISHED:
        return manifest.sources
    try:
        earlier = find_earlier(run)
    except ConfigError:
        earlier = None
        if manifest is None:
            raise
    if earlier is None:
        return {} if manifest is None else manifest.sources
    return {_SOURCE: earlier.manifest.content}


def _named(run: Run) -> str:
    """The run that `export.align` names, or `train.start` where it is not given."""
    align = run.config.export.align
    return run.config.train.start if align is None else align


def align(run: Run, spec: VectorSpec, earlier: Artifact, blocks: Blocks) -> Alignment:
    """The rotation onto earlier vectors; none where they cannot be brought near.

    Args:
        run: the run; its `export.align_limit` is the greatest relative distance that is left.
        spec: of its vectors.
        earlier: export of the run to align to.
        blocks: its vectors.
    """
    own = new_space(run.artifact("train"))
    before, dim = spec_of(earlier), spec.model_dim
    if before.model_dim != dim:
        reason = f"the earlier vectors have {before.model_dim} coordinates, these have {dim}"
        return Alignment(Space(id=own, reason=reason))
    found = [_Side.of(run, side, earlier, blocks(side), dim) for side in FILES]
    cross_DD = np.zeros((dim, dim))
    for one in found:
        cross_DD += one.cross_DD / max(one.before, 1e-300)
    ids = sum(one.ids for one in found)
    if not ids:
        return Alignment(Space(id=own, reason="no id is in both runs"))
    left_DD, _, right_DD = np.linalg.svd(cross_DD)
    rotation_DD = left_DD @ right_DD
    residual = max(one.residual(rotation_DD) for one in found)
    facts = {"residual": residual, "ids": ids, "aligned_to": earlier.manifest.content}
    limit = run.config.export.align_limit
    if residual > limit:
        reason = f"{residual:.3f} of the earlier vectors' length is left, more than {limit:g}"
        return Alignment(Space(id=own, reason=reason, **facts))
    return Alignment(Space(id=space_of(earlier), aligned=True, **facts), rotation_DD)


@dataclass(frozen=True)
class _Side:
    """Weighted sums over the ids of one side that are in both runs."""

    ids: int
    cross_DD: Doubles
    now: float
    before: float

    @staticmethod
    def of(
        run: Run,
        side: str,
        earlier: Artifact,
        blocks: Iterator[tuple[int, Floats, NDArray[np.int64]]],
        dim: int,
    ) -> _Side:
        """Sum up one side.

        Args:
            run: the run.
            side: "users" or "items".
            earlier: the earlier export.
            blocks: vectors of the run.
            dim: D.
        """
        rows = earlier_rows(
            Vocabulary.of(run.artifact("vocab"), side), Vocabulary.of(earlier, side)
        )
        vectors, cross_DD = Vectors.of(earlier, side), np.zeros((dim, dim))
        ids, now, before = 0, 0.0, 0.0
        for first, vector_NE, count_N in blocks:
            row_N = rows[first : first + len(vector_NE)]
            known = row_N >= 0
            if not known.any():
                continue
            new_ND = vector_NE[known, :dim].astype(np.float64)
            old_ND = vectors.gather(row_N[known])[:, :dim].astype(np.float64)
            weight_N1 = count_N[known, None].astype(np.float64)
            cross_DD += (new_ND * weight_N1).T @ old_ND
            now += float((weight_N1 * np.square(new_ND)).sum())
            before += float((weight_N1 * np.square(old_ND)).sum())
            ids += int(known.sum())
        return _Side(ids, cross_DD, now, before)

    def residual(self, rotation_DD: Doubles) -> float:
        """|X R - Y| / |Y|, 0 without ids."""
        if not self.before:
            return 0.0
        left = self.now + self.before - 2 * float((self.cross_DD * rotation_DD).sum())
        return float((max(left, 0.0) / self.before) ** 0.5)
