"""Vectors in closed form: from products with the sparse matrix of the events, without a loss."""

from __future__ import annotations

from embedmill.pipeline.train.closed_form.pass_plan import PassPlan
from embedmill.pipeline.train.closed_form.subspace import SubspaceIteration

__all__ = ["PassPlan", "SubspaceIteration"]
