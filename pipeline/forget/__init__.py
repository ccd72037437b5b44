"""Forget users and items: erase them from everything below a root."""

from embedmill.pipeline.forget.erase_root import forget
from embedmill.pipeline.forget.verification import verify_root

__all__ = ["forget", "verify_root"]
