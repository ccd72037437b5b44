"""Sizes that an estimate of all stages is made from: of stages, of a profile, or given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from embedmill.pipeline.config import Config
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.store.run import Run

__all__ = ["GivenLine", "LineSizes", "read_profile"]

Counters = Mapping[str, Mapping[str, int]]

_RAW_BYTES = 20  # of a row of a log, compressed, where its files are not known


@dataclass(frozen=True)
class GivenLine:
    """Sizes for stages that have not finished; 0: not given.

    Attributes:
        rows: of the raw log.
        users: that it has.
        items: that it has.
        events: train events.
        counters: of stages by name, as a profile has them.
    """

    rows: int = 0
    users: int = 0
    items: int = 0
    events: int = 0
    counters: Counters = field(default_factory=dict)


@dataclass(frozen=True)
class LineSizes:
    """Rows of a log, and what they become.

    Attributes:
        rows: of the raw log.
        events: after cleaning and merging.
        users: rows of the users' vocabulary.
        items: rows of the items' vocabulary.
        train: events to train on.
        valid: events to validate on.
        test: events to measure with.
        raw_bytes: of the log's files.
    """

    rows: int
    events: int
    users: int
    items: int
    train: int
    valid: int
    test: int
    raw_bytes: int

    @staticmethod
    def of(run: Run, given: GivenLine) -> LineSizes:
        """The sizes of a run: given ones first, then those of finished stages.

        Raises:
            ConfigError: sizes are neither stored nor given.
        """
        counters, raw_bytes = dict(given.counters), 0
        if not (given.rows or given.users or given.items or given.events or counters):
            for stage in ("events", "vocab", "shards"):
                artifact = run.find(stage)
                if artifact is not None:
                    counters[stage] = artifact.counters
                    if stage == "events":
                        raw_bytes = int(artifact.manifest.measured.get("read_bytes", 0))
        events, vocab = counters.get("events", {}), counters.get("vocab", {})
        users = given.users or vocab.get("users", 0)
        items = given.items or vocab.get("items", 0)
        rows = given.rows or events.get("rows_in", 0)
        kept = vocab.get("events_kept", 0) or events.get("events", 0) or rows
        split = counters.get("shards") or _split(run.config, kept, users, given.events)
        total = kept or sum(split.values())
        if not (users and items and total):
            raise ConfigError(
                "sizes are not known before stage 'shards' has finished",
                where=run.storage.root,
                todo="Give --users, --items and --events (or --rows), or --profile, or run up to "
                "'shards' first",
            )
        return LineSizes(
            rows or total, total, users, items, split["train"], split["valid"], split["test"],
            raw_bytes or (rows or total) * _RAW_BYTES,
        )  # fmt: skip


def _split(config: Config, events: int, users: int, train: int) -> dict[str, int]:
    """Events by split, from the config: of a log of `events`, or with `train` train events."""
    shards = config.shards
    if shards.split == "last":
        valid, test = (int(share * users) for share in (shards.valid, shards.test))
        return _sized(events, train, valid, test)
    whole = events or int(train / max(0.01, 1 - shards.valid - shards.test))
    return _sized(whole, train, int(shards.valid * whole), int(shards.test * whole))


def _sized(events: int, train: int, valid: int, test: int) -> dict[str, int]:
    """Train events are those given, or what validation and test leave: at least a half."""
    most = events // 4 if events else max(valid, test)
    valid, test = min(valid, most), min(test, most)
    return {"train": train or events - valid - test, "valid": valid, "test": test}


def read_profile(path: Path) -> Counters:
    """The counters of what `embedmill profile --json` has printed into a file.

    Raises:
        ConfigError: it is no such file.
    """
    try:
        found: Counters = json.loads(path.read_text(encoding="utf-8"))["counters"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no profile: {error}",
            where="--profile",
            todo="Make it with `embedmill profile FILE --json > profile.json`",
        ) from None
    return found
