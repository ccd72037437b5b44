"""A log of a power law as Parquet with string ids, and the config of a run over it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.power_law import draw_rows

__all__ = ["add_log", "ids_of", "sizes_of", "written_config", "written_log"]

_FILE = 1_000_000  # rows of a file of the log
_YEAR = 365 * 24 * 3600 * 10**6  # microseconds

_TASTES = 1000  # of users; each has a thousandth of the items
_OWN = 0.7  # share of a user's events with items of its taste

Rows = NDArray[np.int64]


def add_log(parser: argparse.ArgumentParser, rows: int) -> None:
    """Options of a line over such a log; `rows` is the default of --rows."""
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--objective", choices=("spectral", "softmax"), default="spectral")
    parser.add_argument("--users", type=int, default=0, help="0: a tenth of the rows")
    parser.add_argument("--items", type=int, default=0, help="0: a hundredth of the rows")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value",
                        help="lay a key over the config")  # fmt: skip


def sizes_of(rows: int, users: int = 0, items: int = 0) -> tuple[int, int]:
    """Users and items of a log: those given, else a tenth and a hundredth of its rows."""
    return users or max(1, rows // 10), items or max(1, rows // 100)


def written_log(folder: Path, rows: int, users: int, items: int) -> None:
    """The log, a file at a time: user, item, time in microseconds. The same for the same sizes."""
    folder.mkdir()
    for number, first in enumerate(range(0, rows, _FILE)):
        source, size = np.random.default_rng((19, number)), min(_FILE, rows - first)
        user = draw_rows(users, size, source)
        table = pa.table(
            {
                "user": ids_of("user", user),
                "item": ids_of("item", _items_of(user, items, source)),
                "time": 1_700_000_000_000_000 + source.integers(_YEAR, size=size),
            }
        )
        pq.write_table(table, folder / f"part-{number:05d}.parquet", compression="zstd")


def _items_of(user: Rows, items: int, source: np.random.Generator) -> Rows:
    """An item for each user: most have the user's taste, a thousandth of all items."""
    share, own = items // _TASTES, source.random(len(user)) < _OWN
    item = draw_rows(items, len(user), source)
    item[own] = draw_rows(share, int(own.sum()), source) * _TASTES + user[own] % _TASTES
    return item


def ids_of(side: str, rank: Rows) -> pa.Array:
    """Ids of ranks below 2 ** 32; spelling does not show the rank.

    Args:
        side: "user" or "item".
        rank: int64; 0 has the most events.
    """
    spelled = rank * 2_654_435_761 % 2**32  # odd: one to one
    return pc.binary_join_element_wise(side, pc.cast(pa.array(spelled), pa.string()), "-")


def written_config(folder: Path, objective: str, overrides: Sequence[str]) -> list[str]:
    """Write the TOML of a run over `folder`/log, as the page on scale has it.

    Args:
        folder: where the TOML goes; the run is `folder`/runs/line.
        objective: "spectral" or "softmax", which then has large batches.
        overrides: `section.key=value`.

    Returns:
        the words that follow `embedmill run`.
    """
    (folder / "line.toml").write_text(
        f'[run]\nname = "line"\nroot = "{folder}/runs"\n\n'
        f'[events]\npaths = "{folder}/log/*.parquet"\nformat = "parquet"\n'
        'user = "user"\nitem = "item"\ntime = "time"\ntime_unit = "microseconds"\n\n'
        f'[train]\nobjective = "{objective}"\ndim = 64\nepochs = 1\n'
        + ("batch_size = 16384\n" if objective == "softmax" else "")
        + "\n[index]\nrecall_at_10 = 0.95\n\n[evaluate]\nusers = 20000\n",
        encoding="utf-8",
    )
    return [str(folder / "line.toml"), *(word for one in overrides for word in ("--set", one))]
