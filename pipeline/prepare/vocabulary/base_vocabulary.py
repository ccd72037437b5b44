"""The base vocabulary: the one of an earlier run whose rows this run keeps.

It is named by `vocab.previous`, found and checked here, and identified by the hash of its
content. Its `vocab/spec.json` has what a later run has to know: the columns that its ids come
from, its rows, and the rows that ids without a row of their own share, with the seed of the hash.
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

__all__ = [
    "PUBLISHED",
    "SideRows",
    "VocabularySpec",
    "check_base_vocabulary",
    "check_version",
    "find_base_vocabulary",
    "id_columns",
    "shared_slot_sql",
    "source_stamps",
]

PUBLISHED = "published"  # the value of `vocab.previous` that names the published run
_STAMP = "vocab.previous"


@dataclass(frozen=True)
class SideRows:
    """Rows of one side: `total` rows, of which `shared`, beginning at `shared_from`, have no id."""

    total: int
    shared_from: int
    shared: int

    def is_shared(self, row_E: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Whether each of some rows is a shared one, bool [E]."""
        return (row_E >= self.shared_from) & (row_E < self.shared_from + self.shared)

    def is_shared_sql(self, column: str) -> str:
        """SQL: whether the row in a column is a shared one."""
        return f"({column} >= {self.shared_from} and {column} < {self.shared_from + self.shared})"


@dataclass(frozen=True)
class VocabularySpec:
    """`vocab/spec.json`. `seed` is that of the hash to shared rows; 0 if there are none."""

    columns: dict[str, Any]
    seed: int
    users: SideRows
    items: SideRows

    @staticmethod
    def of(vocab: Artifact) -> VocabularySpec:
        """The spec of a vocabulary."""
        spec = vocab.read_json("spec.json")
        users, items = (SideRows(**spec[name]) for name in ("users", "items"))
        return VocabularySpec(spec["columns"], spec["seed"], users, items)

    def side(self, side: str) -> SideRows:
        """Rows of "user" or "item"."""
        return self.users if side == "user" else self.items

    def shared_row_sql(self, side: str) -> str:
        """SQL: the shared row of the id in the column named `side`."""
        rows = self.side(side)
        return f"{rows.shared_from} + {shared_slot_sql(side, self.seed, rows.shared)}"

    def as_json(self) -> dict[str, Any]:
        """The content of spec.json."""
        return asdict(self)


def shared_slot_sql(column: str, seed: int, slots: int) -> str:
    """SQL: which of `slots` shared rows the id in a column has, by a hash of id and seed."""
    return f"pmod(xxhash64({column}, cast({seed} as bigint)), {slots})"


def id_columns(config: Config) -> dict[str, Any]:
    """The columns of the raw log that ids come from."""
    return {"user": config.events.user, "item": config.events.item}


def source_stamps(run: Run) -> Mapping[str, Any]:
    """The content hash of the base vocabulary, for the fingerprint of the stage `vocab`.

    Where the base lies and when it was made is no part of it. `vocab.previous = "published"`
    means the run that was published when the stage was built: publishing another run later does
    not make a finished stage stale.

    Raises:
        MissingArtifactError, ConfigError, StaleArtifactError: see `find_base_vocabulary`.
    """
    finished = run.manifest("vocab")
    if finished is not None and run.config.vocab.previous == PUBLISHED:
        return finished.sources
    base = find_base_vocabulary(run)
    return {} if base is None else {_STAMP: base.manifest.content}


def check_base_vocabulary(config: Config) -> None:
    """Check, before anything runs, that the base vocabulary can be used with a config.

    Raises:
        MissingArtifactError, ConfigError, StaleArtifactError: see `find_base_vocabulary`.
    """
    source_stamps(Run(config))


def find_base_vocabulary(run: Run) -> Artifact | None:
    """The vocabulary whose rows a run keeps, or None if the run begins a new one.

    Raises:
        MissingArtifactError: there is no such run, or its vocabulary has not finished.
        ConfigError: it has other columns or other shared rows, or is this run itself.
        StaleArtifactError: another version of this program wrote it.
    """
    name = run.config.vocab.previous
    folder = _published_folder(run) if name == PUBLISHED else _named_folder(run, name)
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
        is_run = storage.exists("config.json")
        raise MissingArtifactError(
            "the previous run has no finished vocabulary" if is_run else "there is no run",
            where=where,
            todo="Finish it with `embedmill run`, or name another"
            if is_run
            else f"Give a run's name below {run.config.run.root}, or its folder or URL",
        )
    base = Artifact("vocab", storage.at("vocab"), manifest)
    _check_compatible(base, run.config, where)
    return base


def check_version(vocab: Artifact) -> None:
    """Raise StaleArtifactError if another version of this program wrote a vocabulary."""
    if not vocab.readable:
        raise StaleArtifactError(
            f"the contract of this vocabulary is version {vocab.manifest.version}, "
            f"this program reads version {STAGES['vocab'].version}",
            where=vocab.storage.root,
            todo="Build that run anew with --rebuild",
        )


def _published_folder(run: Run) -> str:
    """The folder of the published run; if that is this run, of the base that it was built on."""
    pointer = published(run.config.run.root)
    if pointer is None:
        return ""
    if pointer["run"] == run.config.run.name:
        return str(pointer.get(CONTINUES, ""))
    return _below_root(run, pointer["run"])


def _named_folder(run: Run, name: str) -> str:
    """The folder of a run given by its name, or as a folder or URL; "" for none."""
    return name.rstrip("/") if "/" in name or not name else _below_root(run, name)


def _below_root(run: Run, name: str) -> str:
    return f"{run.config.run.root.rstrip('/')}/{name}"


def _check_compatible(base: Artifact, config: Config, where: str) -> None:
    """Raise unless a run with this config can keep the rows of a vocabulary."""
    check_version(base)
    spec = VocabularySpec.of(base)
    for side, column in id_columns(config).items():
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
