"""Tasks that write the numbered files of a format, one for each file of the export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedmill.pipeline.formats.formats import FORMATS
from embedmill.pipeline.formats.numbered_files import NumberedFiles
from embedmill.pipeline.formats.vector_table import VectorTable

__all__ = ["FileTask", "file_tasks", "write_files"]


@dataclass(frozen=True)
class FileTask:
    """Write the vectors of one file of the export.

    Attributes:
        format: its name.
        table: the vectors of a side.
        folder: of the format, on this machine.
        file: number of the export's file.
        first: number of the first file to write.
    """

    format: str
    table: VectorTable
    folder: Path
    file: int
    first: int


def file_tasks(name: str, table: VectorTable, folder: Path) -> Iterator[FileTask]:
    """The tasks of a side, in order of rows.

    Args:
        name: of a format that has numbered files.
        table: the vectors of the side.
        folder: of the format.
    """
    firsts = _files_of(name).first_numbers(table)
    return (FileTask(name, table, folder, file, first) for file, first in enumerate(firsts))


def write_files(task: FileTask) -> int:
    """Write the files of a task; returns how many vectors they have."""
    return _files_of(task.format).write_part(task.table, task.folder, task.file, task.first)


def _files_of(name: str) -> NumberedFiles:
    files = FORMATS[name].files
    assert files is not None
    return files
