"""Protocols beside the whole catalogue for known users: sampled negatives, users folded in.

Legend: U users of a group, D coordinates.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedmill.pipeline.config import EvaluateConfig
from embedmill.pipeline.evaluate.board import Board, BoardFigures, ItemTable
from embedmill.pipeline.evaluate.holdout import Group
from embedmill.pipeline.evaluate.sampled import SampledFigures, SampledRanks
from embedmill.pipeline.train.fold_in import FoldIn, KnownEvents

__all__ = ["OtherProtocols", "ProtocolFigures"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ProtocolFigures:
    """What an `OtherProtocols` has added up: of sampled negatives, and of users folded in."""

    sampled: SampledFigures | None
    folded_in: BoardFigures | None
    users: int
    sampling: float


@dataclass
class OtherProtocols:
    """Protocols beside the whole catalogue for known users, where the config asks for them."""

    items: ItemTable
    sampled: SampledRanks | None
    fold_in: Callable[[], FoldIn]
    folded_in: Board | None
    users: int = 0
    sampling: float = 0.0

    @staticmethod
    def of(
        config: EvaluateConfig, seed: int, board: Board, counts: Rows, fold_in: Callable[[], FoldIn]
    ) -> OtherProtocols:
        """One that has measured nothing.

        Args:
            config: which protocols.
            seed: of sampled negatives.
            board: of known users and the whole catalogue.
            counts: events of each item that the model was fitted to.
            fold_in: is asked when there are users to fold in.
        """
        sampled = folded_in = None
        if config.sampled_negatives:
            live = np.flatnonzero(board.items.live_N)
            sampled = SampledRanks(config.ks, config.sampled_negatives, seed, counts, live)
        if config.fold_in:
            known = config.model_copy(update={"keep_users": False})
            folded_in = Board.of(known, counts, board.items, board.index)
        return OtherProtocols(board.items, sampled, fold_in, folded_in)

    def add(self, group: Group, user_UD: Floats) -> None:
        """Measure a group."""
        if self.sampled is not None:
            start = time.perf_counter()
            self.sampled.add(group, user_UD, self.items.gather)
            self.sampling += time.perf_counter() - start
        cold = group.folded_in
        if self.folded_in is not None and cold is not None:
            known = KnownEvents(cold.fitted.user, cold.fitted.item, cold.fitted.weight)
            own_UD = self.fold_in().vectors(known, len(cold.users))
            self.users += self.folded_in.add(cold, own_UD)

    def take_figures(self) -> ProtocolFigures:
        """What was added up, and begin anew."""
        sampled = self.sampled.take_figures() if self.sampled is not None else None
        folded_in = self.folded_in.take_figures() if self.folded_in is not None else None
        taken = ProtocolFigures(sampled, folded_in, self.users, self.sampling)
        self.users, self.sampling = 0, 0.0
        return taken

    def add_figures(self, taken: ProtocolFigures) -> None:
        """Add what another one has added up."""
        if self.sampled is not None and taken.sampled is not None:
            self.sampled.add_figures(taken.sampled)
        if self.folded_in is not None and taken.folded_in is not None:
            self.folded_in.add_figures(taken.folded_in)
        self.users += taken.users
        self.sampling += taken.sampling

    def metrics(self) -> dict[str, float]:
        """Metrics under their prefixes."""
        found: dict[str, float] = {}
        if self.sampled is not None:
            found = {f"sampled.{name}": value for name, value in self.sampled.means().items()}
            found["sampled.pairs"] = self.sampled.pairs
        if self.folded_in is not None:
            metrics = self.folded_in.metrics(self.users)
            found |= {f"fold_in.{name}": value for name, value in metrics.items()}
            found["fold_in.users"] = self.users
        return found

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of means over users who were folded in."""
        if self.folded_in is None:
            return {}
        ends = self.folded_in.intervals(self.users)
        return {f"fold_in.{name}": both for name, both in ends.items()}

    def seconds(self) -> dict[str, float]:
        """Seconds by protocol."""
        found = {"sampled": self.sampling} if self.sampled is not None else {}
        if self.folded_in is not None:
            found["fold_in"] = sum(self.folded_in.seconds.values())
        return found
