"""Exported vectors in the formats that other tools load."""

from embedmill.pipeline.formats.contract import DTYPES
from embedmill.pipeline.formats.formats import FORMATS, format_of
from embedmill.pipeline.formats.writer import SIDES, Wanted, write

__all__ = ["DTYPES", "FORMATS", "SIDES", "Wanted", "format_of", "write"]
