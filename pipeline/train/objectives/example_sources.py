"""What an objective is trained on: events of users with items, or pairs of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from embedmill.pipeline.errors import TrainingError
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.data.examples import Examples
from embedmill.pipeline.train.data.histories import Histories, read_latest_events
from embedmill.pipeline.train.data.train_events import read_events
from embedmill.pipeline.train.graph.smoothing import Smoothing
from embedmill.pipeline.train.losses import LossSettings
from embedmill.pipeline.train.model import ItemPairModel, Model
from embedmill.pipeline.train.plan import Layout, TrainingSize
from embedmill.pipeline.train.resources.available import scratch_folder
from embedmill.pipeline.train.tables.embedding_table import Table
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vocabulary import Vocabulary
from embedmill.schemas.shards import pairs_of

__all__ = ["EVENTS", "ITEM_PAIRS", "ExampleSource"]

Counters = Mapping[str, int]


class ExampleSource(Protocol):
    """Examples of a training, and the model that they train."""

    @property
    def similarity(self) -> str | None:
        """How published vectors are compared; None: as in training."""

    def check(self, shards: Artifact) -> None:
        """Raise TrainingError where the shards have no such examples."""

    def epoch_examples(self, shards: Counters) -> int:
        """Examples of an epoch on the train split; `shards` are the counters of the stage."""

    def stored_size(self, vocab: Counters, shards: Counters) -> TrainingSize:
        """The size of a training, from the counters of both stages."""

    def given_size(self, users: int, items: int, train: int, valid: int) -> TrainingSize:
        """The size of a training, before shards are there.

        Args:
            users: users of the log.
            items: items of the log.
            train: examples to train on.
            valid: events to validate on.
        """

    def read(self, run: Run, layout: Layout, *, refit: bool) -> Examples:
        """Read the owned partitions.

        Args:
            run: its shards and vocabulary.
            layout: which partitions this worker owns.
            refit: train on the validation events too, and validate on none.
        """

    def model(
        self,
        users: Table,
        items: Table,
        settings: LossSettings,
        smoothing: Smoothing | None,
        examples: Examples,
    ) -> Model:
        """The model of the two tables.

        Args:
            users: the first table.
            items: the second table.
            settings: of the loss.
            smoothing: of the items' vectors; None for none.
            examples: what it is trained on.
        """


class _Events:
    """Events: every user and every item has a row."""

    similarity = None

    def check(self, shards: Artifact) -> None:
        """See `ExampleSource`: there are train events in any case."""

    def epoch_examples(self, shards: Counters) -> int:
        return shards["train"]

    def stored_size(self, vocab: Counters, shards: Counters) -> TrainingSize:
        return TrainingSize(vocab["users"], vocab["items"], shards["train"], shards["valid"])

    def given_size(self, users: int, items: int, train: int, valid: int) -> TrainingSize:
        return TrainingSize(users, items, train, valid)

    def read(self, run: Run, layout: Layout, *, refit: bool) -> Examples:
        shards, vocab = Shards(run.artifact("shards")), run.artifact("vocab")
        train_splits, valid_splits = _splits(refit)
        rows = vocab.counters["users"], vocab.counters["items"]
        train = read_events(shards, train_splits, layout, rows, scratch_folder(run))
        valid = read_events(shards, valid_splits, layout, rows)
        return Examples(*rows, train, train, valid, inactive=_inactive_items(vocab))

    def model(
        self,
        users: Table,
        items: Table,
        settings: LossSettings,
        smoothing: Smoothing | None,
        examples: Examples,
    ) -> Model:
        return Model(users, items, settings, smoothing)


class _ItemPairs:
    """Pairs of a center and a context: every item has a row in both tables, users have none."""

    similarity = "cosine"

    def check(self, shards: Artifact) -> None:
        if not shards.counters["pairs"]:
            raise TrainingError(
                "no session has two items, so there are no pairs",
                where=shards.storage.root,
                todo="Raise shards.pairs.session_gap_minutes and window_minutes, or set them to 0",
            )

    def epoch_examples(self, shards: Counters) -> int:
        return shards["pairs"]

    def stored_size(self, vocab: Counters, shards: Counters) -> TrainingSize:
        pairs = max(shards["pairs"], shards.get("pairs_with_valid", 0))
        events = shards["train"] + shards["valid"]
        return TrainingSize(vocab["items"], vocab["items"], pairs, events, derived=vocab["users"])

    def given_size(self, users: int, items: int, train: int, valid: int) -> TrainingSize:
        return TrainingSize(items, items, train, valid, derived=users)

    def read(self, run: Run, layout: Layout, *, refit: bool) -> Examples:
        shards, last = Shards(run.artifact("shards")), run.config.train.item2vec.history
        events = EVENTS.read(run, layout, refit=refit)
        folder = pairs_of(_splits(refit)[0])
        both = events.items, events.items
        pairs = read_events(shards, [folder], layout, both, scratch_folder(run))
        history = events.known
        if last:
            rows = events.users, events.items
            history = read_latest_events(shards, _splits(refit)[0], layout, rows, last)
        histories = Histories(history, events.users, layout)
        return replace(events, users=events.items, train=pairs, histories=histories)

    def model(
        self,
        users: Table,
        items: Table,
        settings: LossSettings,
        smoothing: Smoothing | None,
        examples: Examples,
    ) -> Model:
        assert examples.histories is not None
        return ItemPairModel(users, items, settings, smoothing, examples.histories)


def _splits(refit: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits to train on, and to validate on."""
    return (("train", "valid"), ()) if refit else (("train",), ("valid",))


def _inactive_items(vocab: Artifact) -> Tensor | None:
    """Rows of items that are no candidates: retired ones, and those that several ids share."""
    if vocab.counters["items_live"] == vocab.counters["items"]:
        return None
    return torch.from_numpy(np.flatnonzero(~Vocabulary.of(vocab, "items").live()))


EVENTS: ExampleSource = _Events()
ITEM_PAIRS: ExampleSource = _ItemPairs()
