"""The nearest-neighbour index over the items: FAISS, behind one small contract."""

from pipeline.index.allowed import Allowed
from pipeline.index.asking import Answers, Filter, Reader
from pipeline.index.auto import choose
from pipeline.index.contract import Index
from pipeline.index.hunt import Choice
from pipeline.index.kinds import INDEXES, check_kind, kind_of
from pipeline.index.opening import open_reader as open
from pipeline.index.opening import reader_of
from pipeline.index.previous import sources
from pipeline.index.reader import IndexReader, open_index
from pipeline.index.stage import build

__all__ = [
    "INDEXES",
    "Allowed",
    "Answers",
    "Choice",
    "Filter",
    "Index",
    "IndexReader",
    "Reader",
    "build",
    "check_kind",
    "choose",
    "kind_of",
    "open",
    "open_index",
    "reader_of",
    "sources",
]
