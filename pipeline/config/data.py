"""Sections of the data stages: events, vocab, shards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from embedmill.pipeline.config.conditions import parse
from embedmill.pipeline.config.input import FORMATS, InputConfig
from embedmill.pipeline.config.section import ELSEWHERE, Paths, Section
from embedmill.pipeline.config.signals import SignalsConfig

__all__ = ["EventsConfig", "ItemsConfig", "PairsConfig", "ShardsConfig", "VocabConfig"]


class ItemsConfig(Section):
    """Item metadata: titles and categories for the report and the command line."""

    paths: Paths = Field(json_schema_extra=ELSEWHERE, description="files, folders, globs or URLs")
    format: FORMATS = "tsv"
    separator: str = Field("\t", min_length=1, description="for delimited")
    encoding: str = "utf-8"
    header: bool = True
    columns: tuple[str, ...] = ()
    item: str = Field("item_id", description="column of the id")
    title: str = Field("{title}", description="a template over columns: '{name} ({year})'")
    categories: str = Field("", description="column of the categories; empty for none")
    categories_separator: str = Field("|", min_length=1)


class EventsConfig(InputConfig):
    """Raw logs, and what becomes of events that are alike."""

    filter: str = Field(
        "", max_length=10_000, description="SQL condition on the raw columns: others are dropped"
    )
    drop_repeats: bool = Field(
        False,
        description="rows alike in user, item, time, weight and split count once, before they are "
        "merged: a file may be delivered twice",
    )
    merge_by: Literal["event", "pair", "none"] = Field(
        "event",
        description="events alike in user, item and time are one (event); in user and item (pair)",
    )
    merge_weight: Literal["max", "sum", "last", "count"] = "max"
    merge_time: Literal["first", "last"] = Field("last", description="for merge_by = 'pair'")
    items: ItemsConfig | None = None
    signals: SignalsConfig = SignalsConfig()

    @model_validator(mode="after")
    def _rules(self) -> EventsConfig:
        rules = self.signals
        if self.filter:
            try:
                parse(self.filter)
            except ValueError as error:
                raise ValueError(f"filter: {error}") from None
        timely = {
            "drop_repeats": self.drop_repeats,
            "signals.half_life_days": rules.half_life_days,
            "signals.max_user_day": rules.max_user_day,
            "signals.keep = 'latest'": rules.max_user_events and rules.keep == "latest",
        }
        for key, asked in timely.items():
            if asked and not self.time:
                raise ValueError(f"time: needed for events.{key}")
        if rules.min_weight is not None and not (self.weight or rules.types):
            raise ValueError("weight: needed for events.signals.min_weight, or types")
        if self.merge_weight == "count" and rules.ranks_types and not rules.binary:
            raise ValueError(
                "merge_weight: 'count' counts rows, whatever events.signals.types says they "
                "weigh; 'sum' adds their weights"
            )
        return self


class VocabConfig(Section):
    """Ids to dense rows."""

    min_user_count: int = Field(1, ge=1, description="users with fewer events are dropped")
    min_item_count: int = Field(1, ge=1)
    previous: str = Field(
        "",
        max_length=4096,
        json_schema_extra=ELSEWHERE,
        description="keep the rows of this run's ids: a run's name, its folder or URL, "
        "or 'published'; empty for a new vocabulary",
    )
    retire_after: int = Field(
        3,
        ge=0,
        le=1_000_000,
        description="runs in a row below its minimum count that an id of the previous run "
        "stays in use, as long as it has events; its row is its own for ever",
    )
    oov_rows: int = Field(
        0,
        ge=0,
        le=65536,
        description="rows per side that ids out of the vocabulary share by their hash; "
        "0: their events are dropped",
    )


class PairsConfig(Section):
    """Pairs of items from users' sessions, for item2vec; without this section there are none."""

    window: int = Field(
        5, ge=0, le=4096, description="items to each side of an item; 0: its whole session"
    )
    window_minutes: float = Field(
        0, ge=0, description="a pair is at most so far apart in time; 0: any time"
    )
    session_gap_minutes: float = Field(
        0, ge=0, description="a longer pause ends a session; 0: a user's history is one session"
    )
    max_session: int = Field(
        1000, ge=2, le=4096, description="longer sessions are cut into equal pieces, and counted"
    )
    subsample: float = Field(
        0, ge=0, le=1, description="an item of share f stays with chance sqrt(this / f); 0: all"
    )
    with_valid: bool = Field(
        False, description="also pairs of train and validation events, for train.refit"
    )


class ShardsConfig(Section):
    """Train, validation and test, decided once."""

    split: Literal["last", "time", "random", "given"] = "last"
    valid: float = Field(
        1, ge=0, description="last: events per user; random, time, given: share of the events"
    )
    test: float = Field(1, ge=0)
    valid_from: str = Field("", description="time: ISO time; empty to use the shares")
    test_from: str = ""
    given_train: Paths = ("train",)
    given_valid: Paths = ("valid",)
    given_test: Paths = ("test",)
    pairs: PairsConfig | None = None

    @model_validator(mode="after")
    def _sizes(self) -> ShardsConfig:
        if self.split == "last":
            if self.valid != int(self.valid) or self.test != int(self.test):
                raise ValueError("valid, test: whole numbers of events for split = 'last'")
        elif self.split == "given":
            if self.valid >= 1:
                raise ValueError(
                    "valid: a share of the train events below 1, for split = 'given'; "
                    "it is used where the column names no validation"
                )
        elif self.valid + self.test >= 1 and not (self.valid_from and self.test_from):
            raise ValueError(
                f"valid, test: shares that leave some to train, together below 1, "
                f"for split = '{self.split}'"
            )
        return self
