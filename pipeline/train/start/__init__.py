"""Training that starts from the tables of an earlier run."""

from __future__ import annotations

from embedmill.pipeline.train.start.find_start import Start, find_start, sources, started_config

__all__ = ["Start", "find_start", "sources", "started_config"]
