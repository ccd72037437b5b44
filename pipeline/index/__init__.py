"""The nearest-neighbour index over the items: FAISS, behind one small contract."""

from pipeline.index.build import build
from pipeline.index.contract import Index
from pipeline.index.kinds import INDEXES
from pipeline.index.reader import IndexReader, open_index

__all__ = ["INDEXES", "Index", "IndexReader", "build", "open_index"]
