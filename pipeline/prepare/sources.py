"""Which raw files there are, and how each is cut into splits. Planned on the driver."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pyarrow as pa

from pipeline.config import EventsConfig, ItemsConfig
from pipeline.datasets import resolve
from pipeline.errors import ConfigError, InputError
from pipeline.prepare import columnar, delimited, jsonlines
from pipeline.prepare.block import Block, Layout, Split
from pipeline.prepare.signals import columns
from pipeline.storage import Source, find_sources, stamps

__all__ = ["SOURCES", "layout", "open_split", "plan", "stamp"]

SPLITS = pa.schema(
    [
        ("number", pa.int64()),
        ("url", pa.string()),
        ("name", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Format:
    """A source format: `blocks` parses a split, `splits` says where a file may be cut."""

    blocks: Callable[[Split, Layout], Iterator[Block]]
    cut: Callable[[Source, Layout], list[tuple[int, int]]]


def layout(config: EventsConfig | ItemsConfig) -> Layout:
    """How the files are laid out.

    Raises:
        ConfigError: the encoding is not known.
    """
    try:
        encoding = codecs.lookup(config.encoding).name
    except LookupError:
        raise ConfigError(f"unknown encoding '{config.encoding}'", where="events.encoding") from (
            None
        )
    separators = {"tsv": "\t", "csv": ","}
    quote = '"' if isinstance(config, ItemsConfig) else config.quote
    separator = separators.get(config.format, config.separator)
    # Python's csv, which reads quoted lines, takes separators of one character.
    quoted = config.format in ("csv", "delimited") and len(separator) == 1
    return Layout(
        format=config.format,
        separator=separator,
        quote=quote if quoted else "",
        encoding=encoding,
        header=config.header,
        names=config.columns,
        wanted=_wanted(config),
    )


def plan(config: EventsConfig) -> list[Split]:
    """The splits of all files of `events.paths`, in the order of paths and names.

    Raises:
        InputError: a path names nothing, or the first file has other columns.
    """
    shape = layout(config)
    cut = SOURCES[config.format].cut
    splits: list[Split] = []
    for name, source in _named(config.paths):
        pieces = cut(source, shape)
        for start, end in pieces:
            size = source.bytes // len(pieces)
            splits.append(Split(len(splits), source.url, name, start, end, size))
    return splits


def stamp(config: EventsConfig) -> dict[str, str]:
    """A stamp per raw file, metadata included, by name: for the fingerprint of `events`."""
    named = _named(config.paths)
    if config.items:
        named += [(f"items/{name}", source) for name, source in _named(config.items.paths)]
    found = stamps([source for _, source in named])
    return {name: found[source.url] for name, source in named}


def open_split(split: Split, shape: Layout) -> Iterator[Block]:
    """The records of a split, block by block."""
    return SOURCES[shape.format].blocks(split, shape)


def items_splits(config: ItemsConfig) -> list[Split]:
    """The metadata files, each whole."""
    named = _named(config.paths)
    return [Split(n, s.url, name, 0, -1, s.bytes) for n, (name, s) in enumerate(named)]


def task_table(splits: list[Split]) -> pa.Table:
    """Splits as a table that tasks are made from."""
    rows: list[Mapping[str, Any]] = [s.__dict__ for s in splits]
    return pa.Table.from_pylist([dict(r) for r in rows], schema=SPLITS)


def _wanted(config: EventsConfig | ItemsConfig) -> tuple[str, ...]:
    if isinstance(config, ItemsConfig):
        return ()  # all of them: the title is a template over any
    named = (config.user, config.item, config.time, config.weight, config.split, *columns(config))
    return tuple(dict.fromkeys(n for n in named if n))


def _named(patterns: tuple[str, ...]) -> list[tuple[str, Source]]:
    """Files with a name that does not depend on the machine: relative to the pattern's folder.

    Where two patterns give one name, the later is told apart by the pattern's number.

    Raises:
        InputError: two patterns name the same file.
    """
    named: dict[str, Source] = {}
    urls: set[str] = set()
    for number, pattern in enumerate(patterns):
        sources = find_sources(resolve(pattern))
        folder = _folder([source.url for source in sources])
        for source in sources:
            if source.url in urls:
                raise InputError("named by two paths", where=source.url)
            urls.add(source.url)
            name = source.url[len(folder) :]
            named[f"{number}/{name}" if name in named else name] = source
    return list(named.items())


def _folder(urls: list[str]) -> str:
    """The deepest folder that holds all files, with a slash at its end."""
    # Not os.path.commonpath: it takes the second slash of a URL away.
    parts = zip(*(url.split("/")[:-1] for url in urls), strict=False)
    shared = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts)]
    return "/".join([*shared, ""])


SOURCES: dict[str, Format] = {
    "tsv": Format(delimited.blocks, delimited.cut),
    "csv": Format(delimited.blocks, delimited.cut),
    "delimited": Format(delimited.blocks, delimited.cut),
    "jsonl": Format(jsonlines.blocks, jsonlines.cut),
    "parquet": Format(columnar.blocks, columnar.cut),
}
