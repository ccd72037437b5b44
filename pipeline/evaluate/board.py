"""Three recommenders on the same users: the model by exact search, popularity, the index.

Legend: B users of a batch, U users of a group, R rows, D coordinates, N items.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embedmill.pipeline.config import EvaluateConfig
from embedmill.pipeline.evaluate.exposure import Exposure
from embedmill.pipeline.evaluate.holdout import Group
from embedmill.pipeline.evaluate.ranking import Popularity, Slices, Tally, TallyFigures
from embedmill.pipeline.index import ExcludedRows
from embedmill.pipeline.score import top_k
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.evaluate import Slice

__all__ = ["Board", "BoardFigures", "ItemTable", "Recommender"]

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

# An item table up to this many bytes is read once; a larger one for every batch of users.
_LOADED_BYTES = 2 << 30


class Recommender(Protocol):
    """What an opened index can do; see `embedmill.pipeline.index.RowSearcher`."""

    def search_unseen(self, query_BD: Floats, k: int, seen: ExcludedRows) -> tuple[Floats, Rows]:
        """Scores and rows [B, k] of the best items outside each user's list."""


@dataclass(frozen=True)
class ItemTable:
    """The item table, loaded into memory where it is small enough, and which of it is live."""

    vectors: Vectors

    @functools.cached_property
    def loaded(self) -> Floats | None:
        """All vectors, when they are first asked for; None for a large table."""
        small = self.vectors.count * self.vectors.dim * 4 <= _LOADED_BYTES
        return self.vectors.load() if small else None

    @functools.cached_property
    def live_N(self) -> NDArray[np.bool_]:  # noqa: N802 (a shape)
        """Which rows are live, bool [N]."""
        return self.vectors.live()

    @functools.cached_property
    def inactive(self) -> torch.Tensor:
        """Rows that are not live, rising."""
        return torch.from_numpy(np.flatnonzero(~self.live_N))

    def gather(self, rows: Rows) -> Floats:
        """Vectors of some rows, float32 [R, D]."""
        return self.loaded[rows] if self.loaded is not None else self.vectors.gather(rows)

    def blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """(first row, float32 [N, D]) over the whole catalogue."""
        if self.loaded is not None:
            yield 0, torch.from_numpy(self.loaded)
        else:
            for first, block_ND in self.vectors.blocks():
                yield first, torch.from_numpy(block_ND)


@dataclass(frozen=True)
class UserMetrics:
    """Metrics of the model by exact search for each of some users.

    Attributes:
        rows: of the users, int64 [B].
        values: float64 [B] by "recall@10" and so on.
    """

    rows: Rows
    values: dict[str, torch.Tensor]


@dataclass(frozen=True)
class BoardFigures:
    """What a `Board` has added up, to be added to that of another."""

    by_recommender: dict[str, TallyFigures]
    asked: torch.Tensor
    seconds: dict[str, float]


@dataclass(frozen=True)
class Board:
    """Three recommenders on the same users: the model, popularity, the index."""

    config: EvaluateConfig
    items: ItemTable
    index: Recommender
    popularity: Popularity
    parts: Slices
    by_recommender: dict[str, Tally]
    asked: torch.Tensor
    seconds: dict[str, float]
    by_user: list[UserMetrics]

    @staticmethod
    def of(config: EvaluateConfig, counts: Rows, items: ItemTable, index: Recommender) -> Board:
        """A board without answers.

        Args:
            config: lengths of lists, slices.
            counts: events of each item that the model was fitted to.
            items: the item table.
            index: opened.
        """
        parts = Slices.cut(counts, items.live_N, config.slices)
        by_recommender = {
            name: Tally(config.ks, parts, Exposure(config.ks, counts, items.live_N))
            for name in ("", "popularity", "through_index")
        }
        asked = torch.zeros(len(parts.names), dtype=torch.int64)
        seconds = dict.fromkeys(("exact", "popularity", "through_index"), 0.0)
        popularity = Popularity(counts, items.live_N)
        return Board(config, items, index, popularity, parts, by_recommender, asked, seconds, [])

    def add(self, group: Group, user_UD: Floats) -> int:
        """Rank for the group's users with something to find; returns how many they are."""
        chosen = (group.relevant.lengths > 0).nonzero()[:, 0]
        most = max(self.config.ks)
        for start in range(0, len(chosen), self.config.batch_users):
            batch = chosen[start : start + self.config.batch_users]
            seen, relevant = group.seen.select(batch), group.relevant.select(batch)
            user_BD = user_UD[batch.numpy()]
            with self._timed("exact"):
                users, items = torch.from_numpy(user_BD), self.items
                _, rows = top_k(users, items.blocks(), most, seen, items.inactive)
                values = self.by_recommender[""].add(rows, relevant)
            if self.config.keep_users:
                self.by_user.append(UserMetrics(group.users[batch.numpy()], values))
            with self._timed("popularity"):
                self.by_recommender["popularity"].add(self.popularity.top(most, seen), relevant)
            with self._timed("through_index"):
                excluded = ExcludedRows(seen.indptr.numpy(), seen.rows.numpy())
                for k in self.config.ks:
                    _, found = self.index.search_unseen(user_BD, k, excluded)
                    self.by_recommender["through_index"].add(
                        torch.from_numpy(found), relevant, (k,)
                    )
            which = self.parts.of_item[relevant.rows]
            self.asked.add_(torch.bincount(which, minlength=len(self.asked)))
        return len(chosen)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def take_figures(self) -> BoardFigures:
        """What was added up, and begin anew."""
        by_recommender = {name: tally.take_figures() for name, tally in self.by_recommender.items()}
        taken = BoardFigures(by_recommender, self.asked.clone(), dict(self.seconds))
        self.asked.zero_()
        self.seconds.update(dict.fromkeys(self.seconds, 0.0))
        return taken

    def add_figures(self, taken: BoardFigures) -> None:
        """Add what another board has added up."""
        for name, tally in self.by_recommender.items():
            tally.add_figures(taken.by_recommender[name])
        self.asked.add_(taken.asked)
        for name, took in taken.seconds.items():
            self.seconds[name] += took

    def metrics(self, users: int) -> dict[str, float]:
        """Means over users, flat; empty where there were none."""
        return {
            f"{prefix}.{name}" if prefix else name: value
            for prefix, tally in self.by_recommender.items()
            for name, value in tally.means(users).items()
        }

    def intervals(self, users: int) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of metrics that are means over users, by their names."""
        return {
            f"{prefix}.{name}" if prefix else name: ends
            for prefix, tally in self.by_recommender.items()
            for name, ends in tally.intervals(users).items()
        }

    def slices(self) -> list[Slice]:
        """Share of test pairs found, by slice of items."""
        return [
            Slice.model_validate(
                {
                    "slice": name,
                    "items": int(self.parts.items[s]),
                    "train_events": int(self.parts.train_events[s]),
                    "test_pairs": int(self.asked[s]),
                    **{
                        f"{prefix}.recall@{k}" if prefix else f"recall@{k}": (
                            int(tally.found[k][s]) / int(self.asked[s]) if self.asked[s] else None
                        )
                        for prefix, tally in self.by_recommender.items()
                        for k in self.config.ks
                    },
                }
            )
            for s, name in enumerate(self.parts.names)
            if self.parts.items[s] or name != self.parts.names[-1]
        ]
