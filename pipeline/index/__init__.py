"""The nearest-neighbour index over the items.

Kinds of FAISS indexes behind one contract, selection of the fastest one that meets its targets,
sharded and incremental indexes, and retrieval from a finished one.
"""

from embedmill.pipeline.index.excluded_rows import ExcludedRows
from embedmill.pipeline.index.exhaustive_search import exact_search
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.incremental.previous_index import sources
from embedmill.pipeline.index.index_kind import IndexKind
from embedmill.pipeline.index.kinds import INDEXES, kind_of
from embedmill.pipeline.index.retrieval.item_filter import ItemFilter
from embedmill.pipeline.index.retrieval.open_retriever import open_retriever as open
from embedmill.pipeline.index.retrieval.open_retriever import retriever_of
from embedmill.pipeline.index.retrieval.retriever import FilterLike, Retriever, SearchResults
from embedmill.pipeline.index.retrieval.row_search import RowSearcher, open_index
from embedmill.pipeline.index.searchable import Searchable
from embedmill.pipeline.index.selection.choose import choose
from embedmill.pipeline.index.selection.selector import Selection
from embedmill.pipeline.index.stage import build

__all__ = [
    "INDEXES",
    "ExcludedRows",
    "FilterLike",
    "IndexKind",
    "ItemFilter",
    "Retriever",
    "RowSearcher",
    "SearchResults",
    "Searchable",
    "Selection",
    "build",
    "choose",
    "exact_search",
    "faiss_threads",
    "kind_of",
    "open",
    "open_index",
    "retriever_of",
    "sources",
]
