"""One HTML page about a run: what went in, what came out, and whether it is any good."""

from __future__ import annotations

from embedmill.pipeline.report.stage import build

__all__ = ["build"]
