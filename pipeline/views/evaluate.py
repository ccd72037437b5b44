"""The `evaluate` artifact: metrics on test, recall by slice of items, results of gates."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from embedmill.pipeline.store.artifact import Artifact
from embedmill.schemas.evaluate import (
    GATES,
    METRICS,
    PROTOCOLS,
    SLICES,
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
    def protocols(self) -> list[Protocol]:
        """How the metrics were measured; empty where an older version of this program wrote it."""
        return self.artifact.read_json(PROTOCOLS) if self.artifact.has(PROTOCOLS.path) else []
