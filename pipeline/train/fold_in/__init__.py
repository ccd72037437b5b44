"""Vectors of users or items from their events alone, with the other side's vectors fixed."""

from __future__ import annotations

from embedmill.pipeline.train.fold_in.fold_in import Folded, FoldIn, how_folded, trained_with
from embedmill.pipeline.train.fold_in.known_events import KnownEvents

__all__ = ["FoldIn", "Folded", "KnownEvents", "how_folded", "trained_with"]
