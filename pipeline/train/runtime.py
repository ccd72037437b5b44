"""Where a worker trains: the config, the group of workers, and the partitions that it owns."""

from __future__ import annotations

from dataclasses import dataclass

from embedmill.pipeline.config import Config, TrainConfig
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.plan import Layout

__all__ = ["Runtime"]


@dataclass(frozen=True)
class Runtime:
    """What the parts of a training on one worker share; `seed` is the run's seed.

    `started`: tables began with the rows of an earlier run.
    """

    config: TrainConfig
    seed: int
    group: Group
    layout: Layout
    started: bool = False

    @staticmethod
    def of(config: Config, group: Group) -> Runtime:
        """The runtime of a worker of `group`."""
        layout = Layout(config.run.partitions, group.world, group.rank)
        return Runtime(config.train, config.run.seed, group, layout)
