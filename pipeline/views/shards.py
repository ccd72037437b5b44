"""Events and pairs of `shards`, by split and partition."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.number_columns import numbers
from embedmill.schemas.shards import FILES, SPLITS

__all__ = ["GROUP_EVENTS", "Shards"]

# Of a group that is evaluated at once: some ten MiB, whatever the log, and groups for many tasks.
GROUP_EVENTS = 1 << 20


@dataclass(frozen=True)
class Shards:
    """The events of a run by split ("train", "valid", "test") and partition, and its pairs.

    Partition p has the events of the users whose row is p modulo `partitions`. A split is named as
    its folder is; the folders of pairs are read in the same way.
    """

    artifact: Artifact

    @functools.cached_property
    def partitions(self) -> int:
        """Number of partitions."""
        return len(self.artifact.files(FILES["train"].folder))

    def count(self, split: str) -> int:
        """Events of a split."""
        return self.artifact.counters[split]

    def rows(self, split: str, partition: int) -> int:
        """Events of a split in one partition, from the manifest; 0 where there is no such file."""
        return self._rows.get(FILES[split].path(partition), 0)

    def read(self, split: str, partition: int, columns: Sequence[str]) -> list[NDArray[Any]]:
        """Columns of one file, in the order of the file.

        Args:
            split: a split or a folder of pairs.
            partition: which partition.
            columns: names of columns of the schema.

        Raises:
            CorruptArtifactError: the file is missing or cannot be parsed.
            ContractError: it has other rows than the manifest says.
        """
        path = FILES[split].path(partition)
        table = self.artifact.read_table(path, list(columns))
        expected = self.rows(split, partition)
        if table.num_rows != expected:
            raise ContractError(
                f"has {table.num_rows:,} rows, the manifest says {expected:,}",
                where=self.artifact.url(path),
            )
        return [numbers(table[name]) for name in columns]

    def concatenated(
        self, splits: Sequence[str], partitions: Sequence[int], columns: Sequence[str]
    ) -> list[NDArray[Any]]:
        """Columns of several files: partition by partition, in each split after split.

        Args:
            splits: at least one.
            partitions: at least one.
            columns: names of columns of the schema.

        Raises:
            as `read`.
        """
        parts = [
            self.read(split, partition, columns) for partition in partitions for split in splits
        ]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]

    def groups(self, events: int) -> list[list[int]]:
        """Partitions in order, in groups that have at most so many events of all splits.

        A partition that has more is a group of its own.
        """
        groups: list[list[int]] = []
        held = 0
        for partition in range(self.partitions):
            size = sum(self.rows(split, partition) for split in SPLITS)
            if not groups or held + size > events:
                groups.append([])
                held = 0
            groups[-1].append(partition)
            held += size
        return groups

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {entry.path: entry.rows or 0 for entry in self.artifact.files()}
