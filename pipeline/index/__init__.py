"""The nearest-neighbour index over the items: FAISS, behind one small contract."""

from pipeline.index.choice.auto import choose
from pipeline.index.choice.hunt import Choice
from pipeline.index.contract import Index
from pipeline.index.kinds import INDEXES, check_kind, kind_of
from pipeline.index.previous import sources
from pipeline.index.reading.allowed import Allowed
from pipeline.index.reading.asking import Answers, Filter, Reader
from pipeline.index.reading.opening import open_reader as open
from pipeline.index.reading.opening import reader_of
from pipeline.index.reading.reader import IndexReader, open_index
from pipeline.index.spread.pool import LAUNCHERS, Pool, in_order
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
