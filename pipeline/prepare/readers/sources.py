"""Which raw files there are, and how each is cut into splits. Planned on the driver."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import Any

import pyarrow as pa

from embedmill.pipeline.config import EventsConfig, ItemsConfig
from embedmill.pipeline.errors import ConfigError, InputError
from embedmill.pipeline.prepare.engine.frames import TASK_BYTES
from embedmill.pipeline.prepare.readers import columnar, delimited, jsonlines, text
from embedmill.pipeline.prepare.readers.compression import codec_of, without_codec
from embedmill.pipeline.prepare.readers.hive_folders import in_range, values_of
from embedmill.pipeline.prepare.readers.parsed_batch import Block, Layout, Split
from embedmill.pipeline.prepare.rules.signals import columns
from embedmill.pipeline.store.datasets import resolve
from embedmill.pipeline.store.storage import Source, find_sources, stamps

__all__ = ["SOURCES", "Plan", "bundles", "layout", "open_split", "plan", "stamp"]

SPLITS = pa.schema(
    [
        ("number", pa.int64()),
        ("url", pa.string()),
        ("name", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("folders", pa.string()),
        ("first", pa.int64()),
        ("last", pa.bool_()),
        ("bundle", pa.int64()),
    ]
)
_ENDINGS = {
    ".tsv": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl", ".parquet": "parquet", ".pq": "parquet", ".txt": "delimited",
    ".log": "delimited", ".dat": "delimited",
}  # fmt: skip
_SEPARATORS = {"tsv": "\t", "csv": ","}
_READERS = 16  # files that are looked into at a time


@dataclass(frozen=True)
class Format:
    """A source format: `blocks` parses a split, `cut` says where a file may be cut.

    `check` raises InputError where a file lacks a column.
    """

    blocks: Callable[[Split, Layout], Iterator[Block]]
    cut: Callable[[Source, Layout], list[tuple[int, int]]]
    check: Callable[[Split, Layout], tuple[str, ...]]


@dataclass(frozen=True)
class Plan:
    """The splits of a log, how many files they are of, and files outside the days asked for."""

    splits: list[Split]
    files: int
    outside: int


def layout(config: EventsConfig | ItemsConfig, kind: str) -> Layout:
    """How the files of a format are laid out.

    Raises:
        ConfigError: the encoding is not known.
    """
    try:
        encoding = codecs.lookup(config.encoding).name
    except LookupError:
        raise ConfigError(f"unknown encoding '{config.encoding}'", where="events.encoding") from (
            None
        )
    separator = _SEPARATORS.get(kind, config.separator)
    quote = '"' if isinstance(config, ItemsConfig) else config.quote
    # Python's csv, which reads quoted lines, takes separators of one character.
    quoted = kind in ("csv", "delimited") and len(separator) == 1
    shape = Layout(
        format=kind,
        separator=separator,
        quote=quote if quoted else "",
        encoding=encoding,
        header=config.header,
        names=config.columns,
        wanted=(),
    )
    if isinstance(config, ItemsConfig):
        return shape  # all columns: the title is a template over any
    return replace(
        shape,
        wanted=_wanted(config),
        aliases=config.aliases,
        defaults=config.defaults,
        flags=frozenset(columns(config)) - set(_mapped(config)),
        explode=config.explode if kind in ("jsonl", "parquet") else "",
        max_line=config.max_line_bytes,
    )


def plan(config: EventsConfig) -> Plan:
    """The splits of all files of `events.paths`, in the order of paths and names.

    Raises:
        InputError: a path names nothing, no file lies in the days asked for, a file's format
            or compression cannot be told, or the first file of a format lacks a column.
    """
    found = in_range(_named(config.paths), config)
    formats = [_format(config.format, source.url) for _, source in found.files]
    shapes = {kind: layout(config, kind) for kind in set(formats)}

    def cuts(file: tuple[tuple[str, Source], str]) -> list[tuple[int, int]]:
        (_, source), kind = file
        return SOURCES[kind].cut(source, shapes[kind])

    with ThreadPoolExecutor(_READERS) as pool:
        parts = list(pool.map(cuts, zip(found.files, formats, strict=True)))
    splits: list[Split] = []
    for (name, source), kind, pieces in zip(found.files, formats, parts, strict=True):
        folders = json.dumps(values_of(source.url), sort_keys=True)
        for piece, (start, end) in enumerate(pieces):
            size, last = source.bytes // len(pieces), piece + 1 == len(pieces)
            splits.append(
                Split(len(splits), source.url, name, start, end, size, kind, folders, last=last)
            )
    for kind, shape in shapes.items():
        first = next((split for split in splits if split.format == kind), None)
        if first is not None:
            SOURCES[kind].check(first, shape)
    return Plan(_bundled(splits), len(found.files), found.outside)


def _bundled(splits: list[Split]) -> list[Split]:
    """Splits that follow each other, together as large as one task's share at most."""
    bundle, size, found = -1, TASK_BYTES, []
    for split in splits:
        if size + split.bytes > TASK_BYTES:
            bundle, size = bundle + 1, 0
        size += split.bytes
        found.append(replace(split, bundle=bundle))
    return found


def bundles(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, list[Split]]]:
    """Rows of a task table as splits, by bundle and in order."""
    splits = sorted((Split(**row) for row in rows), key=lambda split: split.number)
    for bundle, those in groupby(splits, lambda split: split.bundle):
        yield bundle, list(those)


def stamp(config: EventsConfig) -> dict[str, str]:
    """A stamp per raw file, metadata included, by name: for the fingerprint of `events`.

    A name has what else of the path makes a difference: folders that are columns, and for
    metadata the order of files, of which the first to name an item is the one that counts.
    """
    found = in_range(_named(config.paths), config).files
    named = [(_with_folders(name, source), source) for name, source in found]
    if config.items:
        metadata = enumerate(_named(config.items.paths))
        named += [(f"items/{number}/{name}", source) for number, (name, source) in metadata]
    stamped = stamps([source for _, source in named])
    return {name: stamped[source.url] for name, source in named}


def _with_folders(name: str, source: Source) -> str:
    above = values_of(source.url.removesuffix(name))
    return "".join(f"{key}={value}/" for key, value in sorted(above.items())) + name


def open_split(split: Split, shape: Layout) -> Iterator[Block]:
    """The records of a split, block by block."""
    return SOURCES[shape.format].blocks(split, shape)


def items_splits(config: ItemsConfig) -> list[Split]:
    """The metadata files, each whole."""
    return [
        Split(n, s.url, name, 0, -1, s.bytes, _format(config.format, s.url))
        for n, (name, s) in enumerate(_named(config.paths))
    ]


def task_table(splits: list[Split]) -> pa.Table:
    """Splits as a table that tasks are made from."""
    rows: list[Mapping[str, Any]] = [s.__dict__ for s in splits]
    return pa.Table.from_pylist([dict(r) for r in rows], schema=SPLITS)


def _wanted(config: EventsConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*_mapped(config), *columns(config)]))


def _mapped(config: EventsConfig) -> list[str]:
    """The columns that say who, what, when, how much and which split."""
    named = (config.user, config.item, config.time, config.weight, config.split)
    return [name for name in named if name]


def _format(named: str, url: str) -> str:
    """The format of a file: the one that is named, or by the ending of its name.

    Raises:
        InputError: the ending is that of no format, or the compression of none that is read.
    """
    codec_of(url)
    if named != "auto":
        return named
    name = without_codec(url)
    for ending, kind in _ENDINGS.items():
        if name.endswith(ending):
            return kind
    raise InputError(
        f"its name ends like that of no format; there are {', '.join(_ENDINGS)}",
        where=url,
        todo="Set events.format, or name paths without it",
    )


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
    "tsv": Format(delimited.blocks, text.cut, delimited.check),
    "csv": Format(delimited.blocks, text.cut, delimited.check),
    "delimited": Format(delimited.blocks, text.cut, delimited.check),
    "jsonl": Format(jsonlines.blocks, text.cut, jsonlines.check),
    "parquet": Format(columnar.blocks, columnar.cut, columnar.check),
}
