"""The earlier run's vectors beside this run's, on the test events of users who are in both.

Both rank the items that are candidates now, for the same users with the same lists of seen items.
The earlier run cannot answer with an item that it did not have.

Legend: B users of a batch, U users of a group, N items, D coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.evaluate.board import Board, ItemTable
from embedmill.pipeline.evaluate.exposure import Exposure
from embedmill.pipeline.evaluate.holdout import Group
from embedmill.pipeline.evaluate.ranking import Tally, TallyFigures
from embedmill.pipeline.score import top_k
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.views.earlier_run import earlier_rows
from embedmill.pipeline.views.vectors import Vectors

__all__ = ["EarlierFigures", "EarlierQuality"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
_BLOCK = 1 << 17


@dataclass(frozen=True)
class EarlierFigures:
    """What an `EarlierQuality` has added up: users, and figures of this run and the earlier one."""

    users: int
    of_runs: tuple[TallyFigures, TallyFigures]


@dataclass
class EarlierQuality:
    """What both runs find.

    Attributes:
        board: of this run.
        before: vectors of the earlier run, of users and of items.
        row_N: the earlier row of each user and of each item, -1 for none.
        inactive: items that the earlier run cannot answer with, rising.
        of_runs: what this run and the earlier one found.
        users: that were asked.
    """

    board: Board
    before: tuple[Vectors, Vectors]
    row_N: tuple[Rows, Rows]
    inactive: torch.Tensor
    of_runs: tuple[Tally, Tally]
    users: int = 0

    @staticmethod
    def of(board: Board, counts: Rows, now: Artifact, earlier: Artifact) -> EarlierQuality:
        """Without answers.

        Args:
            board: of this run.
            counts: events of each item that this run was fitted to.
            now: its export.
            earlier: the export of the earlier run.
        """
        before = Vectors.of(earlier, "users"), Vectors.of(earlier, "items")
        rows = [
            earlier_rows(Vectors.of(now, one.side).vocabulary, one.vocabulary) for one in before
        ]
        live_N = board.items.live_N & (rows[1] >= 0)
        of_runs = [
            Tally(board.config.ks, board.parts, Exposure(board.config.ks, counts, live))
            for live in (board.items.live_N, live_N)
        ]
        inactive = torch.from_numpy(np.flatnonzero(~live_N))
        both = (rows[0], rows[1])
        return EarlierQuality(board, before, both, inactive, (of_runs[0], of_runs[1]))

    def add(self, group: Group, user_UD: Floats) -> None:
        """Rank for those users of a group who are in both runs and have something to find."""
        row_U = self.row_N[0][group.users]
        known_U = torch.from_numpy(row_U >= 0)
        chosen = ((group.relevant.lengths > 0) & known_U).nonzero()[:, 0]
        config, items = self.board.config, self.board.items
        for start in range(0, len(chosen), config.batch_users):
            batch = chosen[start : start + config.batch_users]
            seen, relevant = group.seen.select(batch), group.relevant.select(batch)
            asked = (
                (user_UD[batch.numpy()], items.blocks(), items.inactive),
                (self.before[0].gather(row_U[batch.numpy()]), self._blocks(items), self.inactive),
            )
            for tally, (user_BD, blocks, inactive) in zip(self.of_runs, asked, strict=True):
                users = torch.from_numpy(user_BD)
                tally.add(top_k(users, blocks, max(config.ks), seen, inactive)[1], relevant)
            self.users += len(batch)

    def take_figures(self) -> EarlierFigures:
        """What was added up, and begin anew."""
        now, before = (tally.take_figures() for tally in self.of_runs)
        taken = EarlierFigures(self.users, (now, before))
        self.users = 0
        return taken

    def add_figures(self, taken: EarlierFigures) -> None:
        """Add what another one has added up."""
        self.users += taken.users
        for tally, figures in zip(self.of_runs, taken.of_runs, strict=True):
            tally.add_figures(figures)

    def metrics(self) -> dict[str, float]:
        """Metrics of the earlier run, and this run's over them; none where nobody was asked."""
        now, before = (tally.means(self.users) for tally in self.of_runs)
        ratios = {f"over_earlier.{n}": now[n] / value for n, value in before.items() if value}
        return {**{f"earlier.{name}": value for name, value in before.items()}, **ratios}

    def _blocks(self, items: ItemTable) -> Iterator[tuple[int, torch.Tensor]]:
        """Vectors of the earlier run by this run's rows, zeros for items that it lacks."""
        row_N, vectors = self.row_N[1], self.before[1]
        for first in range(0, len(items.live_N), _BLOCK):
            rows = row_N[first : first + _BLOCK]
            block_ND = np.zeros((len(rows), vectors.dim), np.float32)
            known = np.flatnonzero(rows >= 0)
            block_ND[known] = vectors.gather(rows[known])
            yield first, torch.from_numpy(block_ND)
