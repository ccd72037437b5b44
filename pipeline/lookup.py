"""Answers for one user or one item of a finished run.

Legend: B = 1 query, N items of a block, D coordinates.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from pipeline.artifact import Artifact
from pipeline.embeddings import Spec, Vectors
from pipeline.errors import InputError
from pipeline.index import open_index
from pipeline.run import Run
from pipeline.score import RowLists, top_k

__all__ = ["Hit", "neighbors", "recommend"]


@dataclass(frozen=True)
class Hit:
    """An answer: raw id, row, and its score (a predicted rating, an inner product, a cosine)."""

    item: str
    row: int
    score: float


def recommend(run: Run, user: str, k: int = 10, *, exclude_seen: bool = True) -> list[Hit]:
    """The best items for a user, through the index, best first.

    Args:
        run: a finished run.
        user: the raw id.
        k: answers wanted; fewer come where the catalogue holds no more.
        exclude_seen: leave out every item that the log has the user with, in any split.

    Raises:
        InputError: no such user (names some alike), one that training never saw, or one whose
            row is retired.
    """
    _check_k(k)
    export, spec = run.artifact("export"), Spec.of(run.artifact("export"))
    users = Vectors.of(export, "users")
    row = users.find(user)
    users.check_live(row)
    splits = _items_of(run.artifact("shards"), row)
    if not any(len(splits[split]) for split in spec.fitted):
        raise InputError(
            f"all events of user {_quoted(user)} are held out, so no vector was learned for it",
            where=run.storage.root,
        )
    met = np.concatenate(list(splits.values())) if exclude_seen else np.empty(0, np.int64)
    seen = RowLists.of(torch.zeros(len(met), dtype=torch.int64), torch.from_numpy(met), 1)
    index = open_index(run.artifact("index"))
    score_Bk, row_Bk = index.unseen(users.gather(np.array([row])), k, seen)
    base = _base(users, spec, row) if spec.objective == "rating" else 0.0
    return _answers(Vectors.of(export, "items"), row_Bk[0], score_Bk[0] + base)


def neighbors(run: Run, item: str, k: int = 10) -> list[Hit]:
    """The items nearest to an item by the cosine of the model's vectors, exact, best first.

    Args:
        run: a finished run.
        item: the raw id, or a title in the item metadata (upper and lower case alike).
        k: answers wanted; fewer come where the catalogue holds no more.

    Raises:
        InputError: no such item (names some alike), or one whose row is retired.
    """
    _check_k(k)
    export, spec = run.artifact("export"), Spec.of(run.artifact("export"))
    items = Vectors.of(export, "items")
    row = _find_item(run, items, item)
    items.check_live(row)
    own = torch.tensor([row])
    query_BD = _unit(torch.from_numpy(items.gather(own.numpy()))[:, : spec.model_dim])

    def blocks() -> Iterator[tuple[int, torch.Tensor]]:
        for first, block_ND in items.blocks():
            yield first, _unit(torch.from_numpy(block_ND)[:, : spec.model_dim])

    itself = RowLists.of(torch.zeros(1, dtype=torch.int64), own, 1)
    barred = torch.from_numpy(np.flatnonzero(~items.live()))
    score_Bk, row_Bk = top_k(query_BD, blocks(), k, itself, barred)
    return _answers(items, row_Bk[0].numpy(), score_Bk[0].numpy())


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}", todo="Ask for at least one answer")


def _items_of(shards: Artifact, user_row: int) -> dict[str, NDArray[np.int64]]:
    """Item rows of the user's events, by split."""
    found = {}
    partitions = len(shards.files("train"))
    for split in ("train", "valid", "test"):
        path = f"{split}/part-{user_row % partitions:05d}.parquet"
        table = shards.read_table(path, ["user_row", "item_row"])
        ours = table.filter(pc.equal(table["user_row"], user_row))
        found[split] = np.unique(ours["item_row"].to_numpy())
    return found


def _base(users: Vectors, spec: Spec, row: int) -> float:
    """What a rating has beside the inner product: the mean and the user's bias."""
    return spec.mean + (float(users.column("bias")[row]) if spec.bias else 0.0)


def _find_item(run: Run, items: Vectors, item: str) -> int:
    try:
        return items.find(item)
    except InputError:
        raw, alike = _by_title(run.artifact("events"), item)
        if raw is not None:
            return items.find(raw)
        if not alike:
            raise
        named = ", ".join(map(_quoted, alike))
        raise InputError(
            f"no item has the id or the title {_quoted(item)}",
            where=run.storage.root,
            todo=f"Did you mean {named}?",
        ) from None


def _by_title(events: Artifact, title: str) -> tuple[str | None, list[str]]:
    """The first item of this title, and titles that look like it where there is none."""
    if not events.has("items.parquet"):
        return None, []
    table = events.read_table("items.parquet", ["item", "title"])
    titles = table["title"].to_pylist()
    for raw, one in zip(table["item"].to_pylist(), titles, strict=True):
        if one.casefold() == title.casefold():
            return raw, []
    inside = [one for one in titles if title.casefold() in one.casefold()]
    return None, inside[:3] or difflib.get_close_matches(title, titles, 3, 0.6)


def _unit(vector_ND: torch.Tensor) -> torch.Tensor:
    """Unit length; a zero vector stays zero and is near to nothing."""
    return torch.nn.functional.normalize(vector_ND, dim=1, eps=1e-30)


def _answers(items: Vectors, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
    held = rows >= 0
    ids = items.ids(rows[held])
    return [
        Hit(raw, int(row), float(score))
        for raw, row, score in zip(ids, rows[held], scores[held], strict=True)
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
