"""The plan of a log's reading: its files, their slices and the tasks that read them.

Planned on the driver.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import takewhile

from embedmill.pipeline.config import EventsConfig, ItemsConfig
from embedmill.pipeline.config.input import NAMED_FIELDS, InputConfig
from embedmill.pipeline.errors import InputError
from embedmill.pipeline.prepare.engine.frames import TASK_BYTES
from embedmill.pipeline.prepare.readers.file_formats import FORMATS, format_of
from embedmill.pipeline.prepare.readers.file_slice import FileSlice
from embedmill.pipeline.prepare.readers.hive_folders import RawFile, files_in_range, folder_values
from embedmill.pipeline.prepare.readers.layout import Layout
from embedmill.pipeline.prepare.readers.table_formats import pinned_snapshot
from embedmill.pipeline.prepare.rules.row_rules import rule_columns
from embedmill.pipeline.store.datasets import resolve
from embedmill.pipeline.store.sources import find_sources, real_url, stamps

__all__ = [
    "ReadPlan",
    "layout_of",
    "metadata_slices",
    "plan_reads",
    "raw_files",
    "source_stamps",
    "title_fields",
    "whole_file",
]

_SEPARATORS = {"tsv": "\t", "csv": ","}
_FIELD = re.compile(r"\{([^{}]+)\}")
_PLANNING_THREADS = 16  # each opens one file at a time


@dataclass(frozen=True)
class ReadPlan:
    """How a log is read.

    Attributes:
        slices: of all files, in the order of paths and names.
        files: number of files.
        outside: number of files outside of the days that the config selects.
    """

    slices: list[FileSlice]
    files: int
    outside: int


def plan_reads(config: EventsConfig, stamps: Mapping[str, str] | None = None) -> ReadPlan:
    """The slices of all files of `events.paths`.

    Args:
        config: the section.
        stamps: of the sources, as `source_stamps` found them: tables are read at the snapshots
            that these name, whatever was committed since.

    Raises:
        InputError: a path names nothing, no file lies in the selected days, a file's format or
            compression is unknown, the first file of a format lacks a column, or a table has
            changed its columns since it was stamped.
    """
    dated = files_in_range(raw_files(config, stamps), config)
    with ThreadPoolExecutor(_PLANNING_THREADS) as pool:
        formats = list(pool.map(lambda file: _format_of(file, config), dated.files))
    layouts = {kind: layout_of(config, kind) for kind in set(formats)}

    def bounds_of(file: tuple[RawFile, str]) -> list[tuple[int, int]]:
        raw, kind = file
        return FORMATS[kind].slice_file(raw.source, layouts[kind])

    with ThreadPoolExecutor(_PLANNING_THREADS) as pool:
        bounds = list(pool.map(bounds_of, zip(dated.files, formats, strict=True)))
    slices: list[FileSlice] = []
    for file, kind, parts in zip(dated.files, formats, bounds, strict=True):
        for number, (start, end) in enumerate(parts):
            whole = whole_file(len(slices), file, kind)
            size, ends = file.source.bytes // len(parts), number + 1 == len(parts)
            slices.append(replace(whole, start=start, end=end, bytes=size, ends_file=ends))
    for kind, layout in layouts.items():
        first = next((one for one in slices if one.format == kind), None)
        if first is not None:
            FORMATS[kind].check_columns(first, layout)
    return ReadPlan(_with_tasks(slices), len(dated.files), dated.outside)


def whole_file(number: int, file: RawFile, kind: str) -> FileSlice:
    """The slice that is a whole file, of this number and format."""
    folders = json.dumps(dict(file.folders), sort_keys=True)
    source = file.source
    return FileSlice(
        number, source.url, file.name, 0, -1, source.bytes, kind, folders, table=file.view
    )


def _format_of(file: RawFile, config: EventsConfig | ItemsConfig) -> str:
    return file.snapshot.kind if file.snapshot else format_of(config.format, file.source.url)


def _with_tasks(slices: list[FileSlice]) -> list[FileSlice]:
    """The slices with the number of their task; a task gets TASK_BYTES, or one larger slice."""
    task, size, assigned = -1, TASK_BYTES, []
    for one in slices:
        if size + one.bytes > TASK_BYTES:
            task, size = task + 1, 0
        size += one.bytes
        assigned.append(replace(one, task=task))
    return assigned


def layout_of(config: EventsConfig | ItemsConfig, kind: str) -> Layout:
    """How to read the files of a format.

    Args:
        config: of the log or of item metadata.
        kind: the format, a key of `FORMATS`.

    """
    separator = _SEPARATORS.get(kind, config.separator)
    quote = '"' if isinstance(config, ItemsConfig) else config.quote
    # Python's csv module, which parses lines with quotes, takes separators of one character.
    quoted = kind in ("csv", "delimited") and len(separator) == 1
    escaped = kind in ("csv", "tsv", "delimited") and len(separator) == 1
    layout = Layout(
        format=kind,
        separator=separator,
        quote=quote if quoted else "",
        encoding=codecs.lookup(config.encoding).name,
        header=config.header,
        names=config.columns,
        wanted=(),
        escape=config.escape if escaped else "",
        null_values=config.null_values,
    )
    if isinstance(config, ItemsConfig):
        return _metadata_layout(layout, config)
    named = _event_columns(config)
    return replace(
        layout,
        wanted=tuple(dict.fromkeys([*named, *rule_columns(config)])),
        aliases=config.aliases,
        defaults=config.defaults,
        ids=frozenset({config.user, config.item, config.split, config.signals.type} - {""}),
        explode=config.explode if kind in NAMED_FIELDS else "",
        max_line_bytes=config.max_line_bytes,
    )


def _metadata_layout(layout: Layout, config: ItemsConfig) -> Layout:
    """The layout with the columns that item metadata names."""
    named = (config.item, *title_fields(config.title), config.categories)
    lists = {config.categories: config.categories_separator} if config.categories else {}
    return replace(
        layout,
        wanted=tuple(dict.fromkeys(name for name in named if name)),
        lists=lists if layout.format == "jsonl" else {},
    )


def title_fields(template: str) -> list[str]:
    """The columns that a title template names: '{title} ({year})' gives title and year."""
    return _FIELD.findall(template)


def _event_columns(config: EventsConfig) -> list[str]:
    """The columns that hold the fields of an event."""
    named = (config.user, config.item, config.time, config.weight, config.split)
    return [name for name in named if name]


def metadata_slices(
    config: ItemsConfig, stamps: Mapping[str, str] | None = None
) -> list[FileSlice]:
    """The files of item metadata that are not empty, one slice each.

    For `stamps` see `plan_reads`.
    """
    pinned = {name.removeprefix("items/"): stamp for name, stamp in (stamps or {}).items()}
    return [
        whole_file(number, file, _format_of(file, config))
        for number, file in enumerate(raw_files(config, pinned))
        if file.source.bytes
    ]


def source_stamps(config: EventsConfig) -> dict[str, str]:
    """A stamp per raw file or table by name, item metadata included: for the fingerprint.

    The name holds whatever else of the path changes the events: Hive folders, whose values are
    columns; and for metadata the position of the file, since the first file that has an item
    decides its title.
    """
    files = files_in_range(raw_files(config), config).files
    named = [(_stamp_name(file), file) for file in files]
    if config.items:
        metadata = enumerate(raw_files(config.items))
        named += [
            (f"items/{file.table or f'{number}/{file.name}'}", file) for number, file in metadata
        ]
    stamp_of = stamps([file.source for _, file in named if not file.snapshot])
    return {
        name: file.snapshot.stamp if file.snapshot else stamp_of[file.source.url]
        for name, file in named
    }


def _stamp_name(file: RawFile) -> str:
    if file.table:
        return file.table
    above = folder_values(file.source.url.removesuffix(file.name))
    return "".join(f"{key}={value}/" for key, value in sorted(above.items())) + file.name


def raw_files(
    config: InputConfig | ItemsConfig, pinned: Mapping[str, str] | None = None
) -> list[RawFile]:
    """The files that paths name, each with a name that does not depend on the machine.

    A name is relative to the deepest folder that holds all files of its pattern. Where two
    patterns give the same name, the later one is prefixed with the number of its pattern.

    Raises:
        InputError: two patterns name the same file.
    """
    named: dict[str, RawFile] = {}
    places: set[str] = set()
    for number, pattern in enumerate(config.paths):
        for file in _files_of(resolve(pattern), number, config, pinned or {}):
            place = real_url(file.source.url)
            if place in places:
                raise InputError("named by two paths", where=file.source.url)
            places.add(place)
            name = file.name
            while name in named:
                name = f"{number}/{name}"
            named[name] = replace(file, name=name)
    return list(named.values())


def _files_of(
    path: str, number: int, config: InputConfig | ItemsConfig, pinned: Mapping[str, str]
) -> list[RawFile]:
    """The files of a path, which is the one of this number; of a table, those of its snapshot."""
    table = f"{number}/{path.rstrip('/').rpartition('/')[2]}"
    snapshot = pinned_snapshot(path, config.format, config.snapshot, pinned.get(table, ""))
    if snapshot is not None:
        return [
            RawFile(
                file.source.url.removeprefix(f"{snapshot.url}/"),
                file.source,
                {**folder_values(f"{snapshot.url}/"), **file.partition},
                table,
                snapshot,
                file.view,
            )
            for file in snapshot.files
        ]
    sources = find_sources(path)
    folder = _common_folder([source.url for source in sources])
    return [RawFile(s.url[len(folder) :], s, folder_values(s.url)) for s in sources]


def _common_folder(urls: list[str]) -> str:
    """The deepest folder that holds all files, with a slash at its end."""
    # Not os.path.commonpath, which would turn the two slashes of a URL into one.
    parts = zip(*(url.split("/")[:-1] for url in urls), strict=False)
    shared = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts)]
    return "/".join([*shared, ""])
