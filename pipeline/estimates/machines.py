"""Machines that a run is estimated for: this one, or a cluster such as "64x8cpu32g"."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.memory import free_memory

__all__ = ["Machines"]

_CLUSTER = re.compile(r"(\d+)x(\d+)cpu(\d+)g", re.IGNORECASE)


@dataclass(frozen=True)
class Machines:
    """Some equal machines.

    Attributes:
        nodes: how many.
        cpus: of each.
        memory: bytes of each.
        price: of a vCPU for an hour, in any currency; 0: not known.
    """

    nodes: int
    cpus: int
    memory: int
    price: float = 0.0

    @staticmethod
    def of(cluster: str, price: float = 0.0) -> Machines:
        """Those of a text "NODESxCPUScpuGIBg"; of an empty one, this machine.

        Raises:
            ConfigError: the text is of another form.
        """
        if not cluster:
            return Machines(1, os.cpu_count() or 1, free_memory(), price)
        found = _CLUSTER.fullmatch(cluster.strip())
        numbers = [int(number) for number in found.groups()] if found else [0]
        if min(numbers) < 1:
            raise ConfigError(
                f"'{cluster}' is no cluster",
                where="--cluster",
                todo="Write nodes, CPUs and GiB of a node: 64x8cpu32g",
            )
        nodes, cpus, memory = numbers
        return Machines(nodes, cpus, memory << 30, price)

    @property
    def cores(self) -> int:
        """Of all machines."""
        return self.nodes * self.cpus

    def cost(self, seconds: float) -> float:
        """Money for all machines over some time."""
        return self.price * self.cores * seconds / 3600
