"""What `import embedmill` gives: one function to run the whole line, one to open a finished run.

Legend: B queries, k answers each, N items, D coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

    from embedmill.pipeline.config import Config
    from embedmill.pipeline.index import FilterLike, Retriever, SearchResults
    from embedmill.pipeline.query.folding import FoldedVectors
    from embedmill.pipeline.query.lookup import Hit
    from embedmill.pipeline.store import run as store
    from embedmill.pipeline.views.vectors import Vectors

__all__ = ["Embeddings", "Run", "open", "run"]


def run(
    events: Any,
    *,
    user: str,
    item: str,
    time: str = "",
    name: str = "",
    root: str | Path = "runs",
    settings: Mapping[str, Any] | None = None,
    vars: Mapping[str, Any] | None = None,
    rebuild: bool = False,
    quiet: bool = False,
) -> Run:
    """Run the whole line: events, vocab, shards, train, export, index, evaluate, report.

    The same call again does nothing but open the finished run; after an interruption it goes on
    where it stopped.

    Args:
        events: raw logs as a path, folder, glob or URL (or several), or a frame of pandas, Polars,
            Arrow or Spark (a Spark frame is collected: give a large one as Parquet files).
        user: column of who.
        item: column of what.
        time: column of when: timestamps, ISO 8601 text, or numbers since 1970 whose unit is told
            from their size. Without one, events are held out at random, not the last ones.
        name: the run's name, a folder below `root`; '' makes one from what was asked for.
        root: folder or fsspec URL of all runs.
        settings: any other key of the config by section: `{"train": {"dim": 128}}`, or by path:
            `{"train.dim": 128}`. `embedmill config --schema` describes them all.
        vars: values of variables: with `{"ds": "2026-11-22"}`, `{ds}` in paths, in the name and in
            settings is that day.
        rebuild: build stages anew that were built with other settings or another log.
        quiet: show no progress.

    Returns:
        the finished, published run.

    Raises:
        EmbedmillError: with what is wrong, where, and what to do. `ConfigError` for settings,
            `InputError` for the log, `StaleArtifactError` for a run of this name that was built
            from something else, `GateError` where the run misses a gate of its settings.
    """
    from embedmill.jobs.all import run_line
    from embedmill.jobs.run_record import RunRecord
    from embedmill.pipeline.store.run import Run as StoredRun
    from embedmill.pipeline.terminal import Terminal

    asked = {**(settings or {}), **({"vars": dict(vars)} if vars else {})}
    config = _config(events, (user, item, time), name, str(root), asked)
    stored = StoredRun(config)
    record = RunRecord()
    with record.reporting(as_json=False):
        run_line(stored, rebuild=rebuild, terminal=Terminal(quiet=quiet), record=record)
    return Run(stored)


def open(url: str | Path) -> Run:
    """The finished run at `url`, or the one that is published below it.

    Args:
        url: the run's folder, or a root with a published run; a path or an fsspec URL.

    Raises:
        MissingArtifactError: there is no run.
        CorruptArtifactError: its files are damaged.
    """
    from embedmill.pipeline.store.run import find_run

    return Run(find_run(str(url)))


@dataclass(frozen=True)
class Run:
    """A finished run: neighbours, recommendations, metrics and vectors."""

    _stored: store.Run

    def neighbors(self, item: str, k: int = 10, *, filter: FilterLike | None = None) -> list[Hit]:
        """The k items nearest to an item by cosine, best first; each has `item` and `score`.

        Args:
            item: the item's id, or its title where the log has item metadata.
            k: answers wanted.
            filter: which items may be answered: `{"categories": ["Drama"]}`, or ids.

        Raises:
            InputError: no such item; names some that look like it.
        """
        from embedmill.pipeline.query.lookup import neighbors

        return neighbors(self._stored, item, k, filter=filter)

    def recommend(
        self, user: str, k: int = 10, *, exclude_seen: bool = True, filter: FilterLike | None = None
    ) -> list[Hit]:
        """The k best items for a user, best first; each has `item` and `score`.

        Args:
            user: the user's id.
            k: answers wanted.
            exclude_seen: leave out what the log has the user with.
            filter: which items may be answered: `{"categories": ["Drama"]}`, or ids.

        Raises:
            InputError: no such user; names some that look like it.
        """
        from embedmill.pipeline.query.lookup import recommend

        return recommend(self._stored, user, k, exclude_seen=exclude_seen, filter=filter)

    def fold(self, events: Any, side: Literal["users", "items"] = "users") -> FoldedVectors:
        """Vectors of users (or items) from their events alone; they need not be in the run.

        Args:
            events: path or URL of a file with the columns of the run's log, or a frame of pandas,
                Polars, Arrow or Spark.
            side: whose vectors are made, "users" or "items".

        Returns:
            `ids`, `to_numpy()` and `to_arrow()`, in order of the id. They may be searched with:
            `run.search(run.fold(events).to_numpy())`.

        Raises:
            InputError: the file cannot be read, or no event has an id that the run has.
        """
        from embedmill import event_frames
        from embedmill.pipeline.query.folding import fold

        source = event_frames.as_arrow(events) if event_frames.is_frame(events) else str(events)
        return fold(self._stored, source, side)

    def search(self, queries: NDArray[np.floating] | Sequence[str], k: int = 10) -> SearchResults:
        """The k items of largest inner product with each query: `ids`, `rows` and `scores`.

        Args:
            queries: vectors, float [B, D], or ids of B items.
            k: answers wanted.

        Raises:
            InputError: vectors of another dimension or not finite, ids that are unknown.
        """
        return self._retriever.search(queries, k)

    @cached_property
    def metrics(self) -> dict[str, float | int | str]:
        """Metrics on the test events, such as `recall@10`, and figures of the index."""
        from embedmill.pipeline.query.metrics import metrics_of

        return metrics_of(self._stored)

    @cached_property
    def items(self) -> Embeddings:
        """The vectors of all items that have one."""
        return Embeddings(self._stored, "items")

    @cached_property
    def users(self) -> Embeddings:
        """The vectors of all users that have one."""
        return Embeddings(self._stored, "users")

    @property
    def folder(self) -> str:
        """Folder or URL of the run; `report/index.html` in it is its page."""
        return self._stored.storage.root

    @property
    def config(self) -> Config:
        """The resolved config, every key with its value."""
        return self._stored.config

    @cached_property
    def _retriever(self) -> Retriever:
        from embedmill.pipeline.index import retriever_of

        return retriever_of(self._stored)

    def __repr__(self) -> str:
        return f"embedmill.open({self.folder!r})"


@dataclass(frozen=True)
class Embeddings:
    """Ids, counts and vectors of one side of a run. Retired ids have no vector and are left out."""

    _stored: store.Run
    side: Literal["users", "items"]

    def to_arrow(self) -> pa.Table:
        """Columns `id`, `count` (its events) and `vector` (D coordinates of float32), by row."""
        import pyarrow as pa

        rows = self._rows
        flat = pa.array(self._vectors.gather(rows).ravel())
        return pa.table(
            {
                "id": pa.array(self._vectors.vocabulary.ids(rows), pa.string()),
                "count": pa.array(self._vectors.column("count")[rows]),
                "vector": pa.FixedSizeListArray.from_arrays(flat, self._vectors.dim),
            }
        )

    def to_pandas(self) -> pd.DataFrame:
        """As `to_arrow`, in pandas; `vector` holds arrays."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """As `to_arrow`, in Polars, which has to be installed."""
        import polars as pl

        return pl.DataFrame(self.to_arrow())

    def to_numpy(self) -> NDArray[np.float32]:
        """The vectors alone, float32 [N, D], in the order of `ids`."""
        return self._vectors.gather(self._rows)

    @property
    def ids(self) -> list[str]:
        """Ids by row."""
        return self._vectors.vocabulary.ids(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _vectors(self) -> Vectors:
        from embedmill.pipeline.views.vectors import Vectors

        return Vectors.of(self._stored.artifact("export"), self.side)

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        import numpy as np

        return np.flatnonzero(self._vectors.live())


def _config(
    events: Any, columns: tuple[str, str, str], name: str, root: str, settings: Mapping[str, Any]
) -> Config:
    """The config of a call of `run`."""
    from embedmill import event_frames
    from embedmill.pipeline.config import parse
    from embedmill.schemas.manifest import digest

    user, item, time = columns
    tree: dict[str, Any] = {"events": {"user": user, "item": item, "time": time}}
    if time:
        tree["events"]["time_unit"] = "auto"
    else:
        tree["shards"] = {"split": "random", "valid": 0.1, "test": 0.1}
    if event_frames.is_frame(events):
        # What fits into memory here is trained here: no Ray is started for it.
        tree["train"] = {"launcher": "inline", "workers": 1}
        tree["events"] |= {"paths": [event_frames.store(events, root)], "format": "parquet"}
    else:
        paths = [events] if isinstance(events, str | Path) else list(events)
        tree["events"] |= {"paths": [str(path) for path in paths], "format": "auto"}
    for key, value in settings.items():
        _lay(tree, key.split("."), value)
    tree.setdefault("run", {})
    tree["run"]["root"] = root
    tree["run"]["name"] = name or f"run-{digest(tree)[:12]}"
    return parse(tree, where="embedmill.run")


def _lay(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Lay a value, or a section key by key, over the tree."""
    if isinstance(value, Mapping) and len(path) == 1:
        for key, one in value.items():
            _lay(tree, [*path, key], one)
        return
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value
