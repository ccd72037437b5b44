"""Sections of the stages that prepare data: events, vocab, shards."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from embedmill.pipeline.config.conditions import parse
from embedmill.pipeline.config.input import (
    FORMATS,
    Escape,
    InputConfig,
    NullValues,
    Snapshot,
    check_text,
)
from embedmill.pipeline.config.section import (
    NOT_IN_FINGERPRINT,
    Paths,
    Section,
)
from embedmill.pipeline.config.signals import SignalsConfig

__all__ = ["EventsConfig", "ItemsConfig", "PairsConfig", "ShardsConfig", "VocabConfig"]


class ItemsConfig(Section):
    """Item metadata: titles and categories for the report and the command line."""

    paths: Paths = Field(
        json_schema_extra=NOT_IN_FINGERPRINT, description="files, folders, globs or URLs"
    )
    format: FORMATS = Field("tsv", description="format of the files; auto: by each file's ending")
    snapshot: Snapshot = ""
    separator: str = Field(
        "\t", min_length=1, description="between fields, for format = 'delimited'"
    )
    encoding: str = Field("utf-8", description="encoding of text files")
    escape: Escape = ""
    null_values: NullValues = ()
    header: bool = Field(True, description="whether the first line of a file names the columns")
    columns: tuple[str, ...] = Field((), description="names of the columns, with header = false")
    item: str = Field("item_id", description="column of the item's id")
    title: str = Field("{title}", description="a template over columns: '{name} ({year})'")
    categories: str = Field("", description="column of the categories; empty: none")
    categories_separator: str = Field(
        "|", min_length=1, description="between the categories of an item"
    )

    @model_validator(mode="after")
    def _text(self) -> ItemsConfig:
        check_text(self.encoding, self.escape, self.separator)
        return self


class EventsConfig(InputConfig):
    """Stage events: raw logs, and the rules by which their rows become events."""

    filter: str = Field(
        "",
        max_length=10_000,
        description="SQL condition on the raw columns; rows that do not meet it are dropped",
    )
    drop_repeats: bool = Field(
        False,
        description="drop rows that are equal in user, item, time, weight and split, as when a "
        "file is delivered twice",
    )
    merge_by: Literal["event", "pair", "none"] = Field(
        "event",
        description="rows merged into one event: equal in user, item and time (event), in user "
        "and item (pair), or none",
    )
    merge_weight: Literal["max", "sum", "last", "count"] = Field(
        "max", description="weight of a merged event, from those of its rows"
    )
    merge_time: Literal["first", "last"] = Field(
        "last", description="time of a merged event, for merge_by = 'pair'"
    )
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
        needs_time = {
            "drop_repeats": self.drop_repeats,
            "signals.half_life_days": rules.half_life_days,
            "signals.max_user_events_per_day": rules.max_user_events_per_day,
            "signals.keep = 'latest'": rules.max_user_events and rules.keep == "latest",
        }
        for key, used in needs_time.items():
            if used and not self.time:
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
    """Stage vocab: which ids get a row, and which."""

    min_user_count: int = Field(1, ge=1, description="users with fewer events are dropped")
    min_item_count: int = Field(1, ge=1, description="items with fewer events are dropped")
    previous: str = Field(
        "",
        max_length=4096,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="run whose ids keep their rows: its name, folder or URL, or 'published'; "
        "empty: a new vocabulary",
    )
    previous_gone: Literal["last", "new", "stop"] = Field(
        "last",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="what a run with previous = 'published' continues whose published run was "
        "deleted: the one that was published before it and is still there (last), a new "
        "vocabulary (new), or nothing: it ends with exit code 4 (stop)",
    )
    retire_after: int = Field(
        3,
        ge=0,
        le=1_000_000,
        description="runs in a row that an id of the previous run stays in use below its minimum "
        "count, while it has events; no other id ever gets its row",
    )
    oov_rows: int = Field(
        0,
        ge=0,
        le=65536,
        description="rows for users, and as many for items, that ids out of the vocabulary share "
        "by hash; 0: their events are dropped",
    )


class PairsConfig(Section):
    """Pairs of items from users' sessions, for item2vec; without this section none are made."""

    window: int = Field(
        5, ge=0, le=4096, description="items on each side that an item pairs with; 0: the session's"
    )
    window_minutes: float = Field(
        0, ge=0, description="greatest time between the items of a pair; 0: no limit"
    )
    session_gap_minutes: float = Field(
        0, ge=0, description="a longer pause ends a session; 0: a user's history is one session"
    )
    max_session: int = Field(
        1000,
        ge=2,
        le=4096,
        description="events of a session at most; longer ones are split into equal pieces",
    )
    subsample: float = Field(
        0,
        ge=0,
        le=1,
        description="keep an event of an item with share f of all events with probability "
        "sqrt(subsample / f); 0: keep all",
    )
    with_valid: bool = Field(
        False, description="also make pairs of train and validation events, for train.refit"
    )


_SHARE = 0.1  # of validation and of test, by default, for splits that take shares


class ShardsConfig(Section):
    """Stage shards: which events are train, validation and test."""

    split: Literal["last", "time", "random", "users", "given"] = Field(
        "last",
        description="by each user's last events, by time, at random, with all events of some users "
        "in test (users), or by the column events.split; not given, in a log without times: given "
        "where events.split names a column, else random",
    )
    valid: float = Field(
        1,
        ge=0,
        description="validation: events of each user (last), share of all events (random, "
        "time) or of the other users' events (users), or share of the train events where the "
        "column names no validation (given); not given: 1 for last, 0.1 for the others",
    )
    test: float = Field(
        1,
        ge=0,
        description="test: events of each user (last), share of all events (random, time) or of "
        "all users (users); not given: 1 for last, 0.1 for the others; given does not read it",
    )
    valid_from: str = Field(
        "", description="ISO time of the first validation event, for time; empty: by share"
    )
    test_from: str = Field(
        "", description="ISO time of the first test event, for time; empty: by share"
    )
    given_train: Paths = Field(("train",), description="values of events.split for train")
    given_valid: Paths = Field(("valid",), description="values of events.split for validation")
    given_test: Paths = Field(("test",), description="values of events.split for test")
    pairs: PairsConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _shares(cls, tree: Any) -> Any:
        """Fill in the shares of the splits that have them."""
        if not isinstance(tree, dict) or tree.get("split", "last") == "last":
            return tree
        if tree.get("valid_from") and tree.get("test_from"):
            return tree  # shares are not read
        shares = {"valid": _SHARE} | ({} if tree["split"] == "given" else {"test": _SHARE})
        return {**shares, **tree}

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
