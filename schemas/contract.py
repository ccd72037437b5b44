"""What the contract of an artifact holds beside its version: schemas, laws, status line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

__all__ = ["ArtifactContract", "Count", "Counters", "Law"]

Counters = Mapping[str, int]
# Formats a count for people.
Count = Callable[[int], str]


@dataclass(frozen=True)
class Law:
    """A conservation law: the sum of the counters `totals` equals the sum of the counters `parts`.

    `optional_parts` count only where they are among the counters. An `optional` law holds where
    at least one of its parts is counted: the config asks for what they count.
    """

    totals: tuple[str, ...]
    parts: tuple[str, ...]
    optional_parts: tuple[str, ...] = ()
    optional: bool = False

    def applies(self, counters: Counters) -> bool:
        """Whether the law must hold for these counters."""
        return not self.optional or any(name in counters for name in self.parts)

    def terms(self, counters: Counters) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the counters on the left and on the right."""
        counted = tuple(name for name in self.optional_parts if name in counters)
        return self.totals, (*self.parts, *counted)


@dataclass(frozen=True)
class ArtifactContract:
    """What must hold of an artifact before its manifest is written, and what `status` prints.

    Attributes:
        status: one line about the artifact, at most 56 characters, from its counters.
        tables: the Arrow schema of the tables below a folder (or in the file of that name).
        laws: conservation laws of its counters.
        rows: by folder the counter that the rows of its files add up to.
    """

    status: Callable[[Counters, Count], str]
    tables: Mapping[str, pa.Schema] = field(default_factory=dict)
    laws: tuple[Law, ...] = ()
    rows: Mapping[str, str] = field(default_factory=dict)
