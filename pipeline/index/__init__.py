"""The nearest-neighbour index over the items: FAISS, behind one small contract."""

from embedmill.pipeline.index.contract import Index
from embedmill.pipeline.index.incremental.base_index import sources
from embedmill.pipeline.index.kinds import INDEXES, check_kind, kind_of
from embedmill.pipeline.index.retrieval.item_filter import Allowed
from embedmill.pipeline.index.retrieval.opening import open_reader as open
from embedmill.pipeline.index.retrieval.opening import reader_of
from embedmill.pipeline.index.retrieval.retriever import Answers, Filter, Reader
from embedmill.pipeline.index.retrieval.row_search import IndexReader, open_index
from embedmill.pipeline.index.selection.select import choose
from embedmill.pipeline.index.selection.selector import Choice
from embedmill.pipeline.index.sharded.task_pool import LAUNCHERS, Pool, in_order
from embedmill.pipeline.index.stage import build

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
