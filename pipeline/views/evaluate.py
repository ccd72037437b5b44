"""The `evaluate` artifact: metrics on test, recall by slice of items, results of gates."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pyarrow as pa

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.evaluate import (
    GATES,
    INTERVALS,
    METRICS,
    PROTOCOLS,
    SLICES,
    USERS,
    GateResult,
    Protocol,
    Slice,
)
from embedmill.schemas.files import Number

__all__ = ["Evaluation"]


@dataclass(frozen=True)
class Evaluation:
    """What was measured on test. Each file is read once, when it is first asked for."""

    artifact: Artifact

    @functools.cached_property
    def metrics(self) -> dict[str, Number]:
        """Metrics by name; their names are listed at `schemas.evaluate.METRICS`."""
        return self.artifact.read_json(METRICS)

    @functools.cached_property
    def slices(self) -> list[Slice]:
        """Slices of the items, most frequent items first."""
        return self.artifact.read_json(SLICES)

    @functools.cached_property
    def gates(self) -> list[GateResult]:
        """Results of the gates, in the order of the config; empty where it has none."""
        return self.artifact.read_json(GATES)

    @functools.cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of metrics that are means over users; empty for an older version's."""
        return self.artifact.read_json(INTERVALS) if self.artifact.has(INTERVALS.path) else {}

    def users(self) -> pa.Table:
        """Metrics of each user: "user" with raw ids, then float64 columns by metric.

        Raises:
            InputError: they were not kept.
        """
        if not self.artifact.has(USERS.path(0)):
            raise InputError(
                "has no metrics of single users",
                where=self.artifact.storage.root,
                todo="Run its config again with --set evaluate.keep_users=true",
            )
        return self.artifact.read_tables(USERS.folder)

    @functools.cached_property
    def protocols(self) -> list[Protocol]:
        """How the metrics were measured; empty where an older version of this program wrote it."""
        return self.artifact.read_json(PROTOCOLS) if self.artifact.has(PROTOCOLS.path) else []
