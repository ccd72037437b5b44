"""Tables of a training as vectors with their ids, in the space of an earlier run if asked for."""

from __future__ import annotations

from embedmill.pipeline.export.alignment import find_earlier, sources
from embedmill.pipeline.export.stage import build
from embedmill.pipeline.export.vector_ranges import ready

__all__ = ["build", "find_earlier", "ready", "sources"]
