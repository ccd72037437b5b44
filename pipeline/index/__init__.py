"""The nearest-neighbour index over the items: FAISS, behind one small contract."""

from pipeline.index.allowed import Allowed
from pipeline.index.asking import Answers, Filter, Reader
from pipeline.index.auto import choose
from pipeline.index.contract import Index
from pipeline.index.hunt import Choice
from pipeline.index.kinds import INDEXES, check_kind, kind_of
from pipeline.index.opening import open_reader as open
from pipeline.index.opening import reader_of
from pipeline.index.pool import LAUNCHERS, Pool, in_order
from pipeline.index.previous import sources
from pipeline.index.reader import IndexReader, open_index
from pipeline.index.stage import build

__all__ = [
    "INDEXES",
    "LAUNCHERS",
    "Allowed",
    "Answers",
    "Choice",
    "Filter",
    "Index",
    "IndexReader",
    "Pool",
    "Reader",
    "build",
    "check_kind",
    "choose",
    "in_order",
    "kind_of",
    "open",
    "open_index",
    "reader_of",
    "sources",
]
