"""Exported vectors in the formats that other tools load."""

from embedmill.pipeline.formats.formats import FORMATS, find_format
from embedmill.pipeline.formats.vector_table import DTYPES
from embedmill.pipeline.formats.writer import SIDES, ExportOptions, write

__all__ = ["DTYPES", "FORMATS", "SIDES", "ExportOptions", "find_format", "write"]
