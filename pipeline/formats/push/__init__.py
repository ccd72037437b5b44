"""Vectors of a run into a store that serves them."""

from embedmill.pipeline.formats.push.transfer import VECTOR_STORES, PushOptions, push

__all__ = ["VECTOR_STORES", "PushOptions", "push"]
