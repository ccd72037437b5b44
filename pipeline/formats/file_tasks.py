"""Tasks that write the numbered files of a format, one for each file of the artifact `export`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from embedmill.pipeline.formats.formats import FORMATS
from embedmill.pipeline.formats.numbered_files import NumberedFiles
from embedmill.pipeline.formats.vector_table import VectorTable

__all__ = ["FileTask", "file_tasks", "write_files"]


@dataclass(frozen=True)
class FileTask:
    """Write the vectors of one file of the artifact.

    Attributes:
        format: its name.
        table: the vectors of a side.
        folder: of the format, on this machine.
        source: number of the artifact's file.
        first: number of the first file to write.
    """

    format: str
    table: VectorTable
    folder: Path
    source: int
    first: int


def file_tasks(name: str, table: VectorTable, folder: Path) -> Iterator[FileTask]:
    """The tasks of a side, in order of rows.

    Args:
        name: of a format that has numbered files.
        table: the vectors of the side.
        folder: of the format.
    """
    firsts = _files_of(name).first_numbers(table)
    bare = replace(table)  # what it has read so far does not go with each task
    return (FileTask(name, bare, folder, source, first) for source, first in enumerate(firsts))


def write_files(task: FileTask) -> int:
    """Write the files of a task; returns how many vectors they have."""
    return _files_of(task.format).write_from(task.table, task.folder, task.source, task.first)


def _files_of(name: str) -> NumberedFiles:
    files = FORMATS[name].files
    assert files is not None
    return files
