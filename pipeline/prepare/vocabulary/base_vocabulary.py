"""The vocabulary that a run continues: found, checked, and told apart by its content.

`vocab/spec.json` says what the next run has to know of a vocabulary: the columns of its ids,
its rows, and the rows that ids out of the vocabulary share, with the seed of their hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedmill.pipeline.config import Config
from embedmill.pipeline.errors import ConfigError, MissingArtifactError, StaleArtifactError
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.run import CONTINUES, Run, published
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.stages import STAGES

__all__ = ["PUBLISHED", "Rows", "Spec", "check", "check_version", "find_previous", "sources"]

PUBLISHED = "published"
STAMP = "vocab.previous"


@dataclass(frozen=True)
class Rows:
    """Rows of one side: `total` of them, of which `shared` from `shared_from` have no id."""

    total: int
    shared_from: int
    shared: int

    def shares(self, row_E: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of some rows are shared ones, bool [E]."""
        return (row_E >= self.shared_from) & (row_E < self.shared_from + self.shared)

    def holds(self, column: str) -> str:
        """SQL: whether the row in a column is a shared one."""
        return f"({column} >= {self.shared_from} and {column} < {self.shared_from + self.shared})"


@dataclass(frozen=True)
class Spec:
    """`vocab/spec.json`. `seed` is that of the shared rows' hash; 0 where there are none."""

    columns: dict[str, Any]
    seed: int
    users: Rows
    items: Rows

    @staticmethod
    def of(vocab: Artifact) -> Spec:
        """The spec of a vocabulary."""
        said = vocab.read_json("spec.json")
        return Spec(said["columns"], said["seed"], Rows(**said["users"]), Rows(**said["items"]))

    def side(self, side: str) -> Rows:
        """Rows of "user" or "item"."""
        return self.users if side == "user" else self.items

    def slot(self, side: str) -> str:
        """SQL: the shared row of an id in the column named `side`."""
        rows = self.side(side)
        return slot_of(side, self.seed, rows.shared, rows.shared_from)

    def as_json(self) -> dict[str, Any]:
        """What is stored."""
        return asdict(self)


def slot_of(column: str, seed: int, shared: int, first: int = 0) -> str:
    """SQL: `first` and the hash of an id and the seed, modulo `shared`."""
    return f"{first} + pmod(xxhash64({column}, cast({seed} as bigint)), {shared})"


def columns_of(config: Config) -> dict[str, Any]:
    """The columns of the raw log that ids come from."""
    return {"user": config.events.user, "item": config.events.item}


def sources(run: Run) -> Mapping[str, Any]:
    """The content of the previous vocabulary, for the fingerprint: neither its path nor time.

    "published" means the run that was when the stage was built: a later one does not make a
    finished stage stale.

    Raises:
        as `find_previous`.
    """
    done = run.manifest("vocab")
    if done is not None and run.config.vocab.previous == PUBLISHED:
        return done.sources
    previous = find_previous(run)
    return {} if previous is None else {STAMP: previous.manifest.content}


def check(config: Config) -> None:
    """Raise where the previous run cannot be continued, before anything has run."""
    sources(Run(config))


def find_previous(run: Run) -> Artifact | None:
    """The vocabulary to continue, or None for a new one.

    Raises:
        MissingArtifactError: there is no such run, or its vocabulary has not finished.
        ConfigError: it is of other columns, has other shared rows, or is this very run.
        StaleArtifactError: another version of this program wrote it.
    """
    named = run.config.vocab.previous
    folder = _published(run) if named == PUBLISHED else _folder(run, named)
    if not folder:
        return None
    where = f"vocab.previous, {folder}"
    if folder.rstrip("/") == run.storage.root.rstrip("/"):
        raise ConfigError(
            "a run cannot continue itself",
            where=where,
            todo="Name the run before it, or give this one another run.name",
        )
    storage = Storage(folder)
    manifest = read_manifest(storage.at("vocab"))
    if manifest is None:
        begun = storage.exists("config.json")
        raise MissingArtifactError(
            "the previous run has no finished vocabulary" if begun else "there is no run",
            where=where,
            todo="Finish it with `embedmill run`, or name another"
            if begun
            else f"Give a run's name below {run.config.run.root}, or its folder or URL",
        )
    found = Artifact("vocab", storage.at("vocab"), manifest)
    _fits(found, run.config, where)
    return found


def check_version(vocab: Artifact) -> None:
    """Raise StaleArtifactError where another version of this program wrote a vocabulary."""
    if not vocab.readable:
        raise StaleArtifactError(
            f"the contract of this vocabulary is version {vocab.manifest.version}, "
            f"this program reads version {STAGES['vocab'].version}",
            where=vocab.storage.root,
            todo="Build that run anew with --rebuild",
        )


def _published(run: Run) -> str:
    """The published run; where it is this one, the run that this one continued."""
    pointer = published(run.config.run.root)
    if pointer is None:
        return ""
    if pointer["run"] == run.config.run.name:
        return str(pointer.get(CONTINUES, ""))
    return _below(run, pointer["run"])


def _folder(run: Run, named: str) -> str:
    return named.rstrip("/") if "/" in named or not named else _below(run, named)


def _below(run: Run, name: str) -> str:
    return f"{run.config.run.root.rstrip('/')}/{name}"


def _fits(found: Artifact, config: Config, where: str) -> None:
    """Raise unless the config can continue this vocabulary."""
    check_version(found)
    spec, asked = Spec.of(found), columns_of(config)
    for side, column in asked.items():
        if spec.columns[side] != column:
            raise ConfigError(
                f"the previous run's {side}s come from column '{spec.columns[side]}', "
                f"events.{side} is '{column}'",
                where=where,
                todo="Continue a run over the same columns, or begin a new vocabulary",
            )
    shared = spec.users.shared
    if shared and shared != config.vocab.oov_rows:
        raise ConfigError(
            f"the previous run has {shared:,} shared rows per side, which are reserved once; "
            f"vocab.oov_rows is {config.vocab.oov_rows:,}",
            where=where,
            todo=f"Set vocab.oov_rows = {shared}, or begin a new vocabulary",
        )
