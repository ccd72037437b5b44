"""Vectors of a run into a store that serves them."""

from embedmill.pipeline.formats.push.transfer import TARGETS, PushOptions, push

__all__ = ["TARGETS", "PushOptions", "push"]
