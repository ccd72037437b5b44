"""Table files → vectors with their ids."""

from embedmill.pipeline.export.stage import build, ready

__all__ = ["build", "ready"]
