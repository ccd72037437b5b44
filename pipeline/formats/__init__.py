"""Exported vectors in the formats that other tools load."""

from pipeline.formats.contract import DTYPES
from pipeline.formats.kinds import FORMATS, format_of
from pipeline.formats.writing import SIDES, Wanted, write

__all__ = ["DTYPES", "FORMATS", "SIDES", "Wanted", "format_of", "write"]
