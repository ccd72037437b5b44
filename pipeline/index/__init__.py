"""The nearest-neighbour index over the items: FAISS, behind one small contract."""

from pipeline.index.contract import Index
from pipeline.index.kinds import INDEXES, kind_of
from pipeline.index.reader import IndexReader, open_index
from pipeline.index.stage import build

__all__ = ["INDEXES", "Index", "IndexReader", "build", "kind_of", "open_index"]
