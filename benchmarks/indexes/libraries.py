"""What each library has to do: build, tell its bytes, answer. Imports its own package alone.

Legend: N vectors, B queries, k answers each, D coordinates; more is nearer (inner product).
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Settings = dict[str, Any]


class Library(ABC):
    """One library. An engine is what its own build gives; `about` is for the table."""

    @abstractmethod
    def build(self, vector_ND: Floats, settings: Settings, threads: int) -> tuple[Any, Settings]:
        """An engine, and what is worth telling of it."""

    @abstractmethod
    def search(self, engine: Any, query_BD: Floats, k: int, effort: Settings) -> Rows:
        """Rows int64 [B, k], -1 where there are no more."""

    @abstractmethod
    def limit(self, threads: int) -> None:
        """Search on so many threads from now on."""

    def size(self, engine: Any) -> int:
        """Bytes of the file that it is stored in."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            self.save(engine, str(path))
            return path.stat().st_size

    def save(self, engine: Any, path: str) -> None:
        raise NotImplementedError


class Faiss(Library):
    """Any index of FAISS's factory; effort is set on the index as autofaiss and users do."""

    def __init__(self) -> None:
        import faiss

        self.faiss = faiss

    def build(self, vector_ND: Floats, settings: Settings, threads: int) -> tuple[Any, Settings]:
        self.faiss.omp_set_num_threads(threads)
        inner = self.faiss.METRIC_INNER_PRODUCT
        engine = self.faiss.index_factory(vector_ND.shape[1], settings["factory"], inner)
        if "construction" in settings:
            engine.hnsw.efConstruction = settings["construction"]  # type: ignore[attr-defined]
        for clustering in _clusterings(engine):
            clustering.min_points_per_centroid = 1  # no warnings
        engine.train(vector_ND)
        engine.add(vector_ND)
        return engine, {}

    def search(self, engine: Any, query_BD: Floats, k: int, effort: Settings) -> Rows:
        self._set(engine, effort)
        rows: Rows = engine.search(query_BD, k)[1]
        return rows

    def limit(self, threads: int) -> None:
        self.faiss.omp_set_num_threads(threads)

    def save(self, engine: Any, path: str) -> None:
        self.faiss.write_index(engine, path)

    def _set(self, engine: Any, effort: Settings) -> None:
        if "ef" in effort:
            engine.hnsw.efSearch = effort["ef"]
        if "k_factor" in effort:
            engine.k_factor = effort["k_factor"]
            engine = self.faiss.downcast_index(engine.base_index)
        if "probes" in effort:
            engine.nprobe = effort["probes"]


def _clusterings(engine: Any) -> list[Any]:
    inner = getattr(engine, "base_index", engine)
    found = [inner.cp] if hasattr(inner, "cp") else []
    return [*found, inner.pq.cp] if hasattr(inner, "pq") else found


class AutoFaiss(Faiss):
    """autofaiss's own pick: kind and effort by bytes and latency; nothing is set by us."""

    def build(self, vector_ND: Floats, settings: Settings, threads: int) -> tuple[Any, Settings]:
        from autofaiss import build_index

        engine, told = build_index(
            np.ascontiguousarray(vector_ND),
            save_on_disk=False,
            max_index_memory_usage=f"{settings['max_bytes'] // 1_000_000}MB",
            current_memory_available="8GB",
            metric_type="ip",
            nb_cores=threads,
            verbose=30,
        )
        return engine, {"label": f"{told['index_key']} {told['index_param']}"}


class HnswLib(Library):
    """hnswlib, compiled for this machine."""

    def __init__(self) -> None:
        self.threads = 1

    def build(self, vector_ND: Floats, settings: Settings, threads: int) -> tuple[Any, Settings]:
        import hnswlib

        engine = hnswlib.Index(space="ip", dim=vector_ND.shape[1])
        engine.init_index(
            max_elements=len(vector_ND),
            ef_construction=settings["construction"],
            M=settings["links"],
            random_seed=1,
        )
        engine.add_items(vector_ND, num_threads=threads)
        return engine, {}

    def search(self, engine: Any, query_BD: Floats, k: int, effort: Settings) -> Rows:
        engine.set_ef(max(k, effort["ef"]))
        labels, _ = engine.knn_query(query_BD, k=k, num_threads=self.threads)
        rows: Rows = labels.astype(np.int64)
        return rows

    def limit(self, threads: int) -> None:
        self.threads = threads

    def save(self, engine: Any, path: str) -> None:
        engine.save_index(path)


class USearch(Library):
    """USearch, in the precision that is asked for."""

    def __init__(self) -> None:
        self.threads = 1

    def build(self, vector_ND: Floats, settings: Settings, threads: int) -> tuple[Any, Settings]:
        from usearch.index import Index

        engine = Index(
            ndim=vector_ND.shape[1],
            metric="ip",
            dtype=settings["dtype"],
            connectivity=settings["links"],
            expansion_add=settings["construction"],
        )
        engine.add(np.arange(len(vector_ND), dtype=np.uint64), vector_ND, threads=threads)
        return engine, {}

    def search(self, engine: Any, query_BD: Floats, k: int, effort: Settings) -> Rows:
        engine.expansion_search = max(k, effort["ef"])
        found = engine.search(query_BD, k, threads=self.threads)
        rows: Rows = np.atleast_2d(found.keys).astype(np.int64)
        counts = np.atleast_1d(np.asarray(getattr(found, "counts", rows.shape[1])))
        if rows.shape[1] < k:
            rows = np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)
        return np.where(np.arange(k) < counts[:, None], rows, -1)

    def limit(self, threads: int) -> None:
        self.threads = threads

    def save(self, engine: Any, path: str) -> None:
        engine.save(path)


class Auto(Library):
    """Ours: what `index.kind = "auto"` selects, tuned with half of the queries, verified with half.

    An effort may name another value of the search parameter.
    """

    def build(self, vector_ND: Floats, settings: Settings, threads: int) -> tuple[Any, Settings]:
        from embedmill.pipeline.config import IndexConfig
        from embedmill.pipeline.index import choose

        self.limit(threads)
        targets = {key: settings[key] for key in ("recall_at_10", "max_bytes") if key in settings}
        query_BD = np.load(settings["queries"])
        config = IndexConfig.model_validate({"kind": "auto", **targets})
        selection = choose(vector_ND, query_BD[::2], query_BD[1::2], config)
        efforts = [{"setting": value} for value in selection.index.settings()]
        chosen = " ".join(f"{name} {value}" for name, value in selection.index.parameters.items())
        built = [
            one for one in selection.candidates if one.plan.kind == selection.kind and one.points
        ]
        seconds = next(one.seconds for one in built if one.bytes == selection.bytes)
        told = {"label": f"{selection.kind} {chosen}", "verified": selection.verified.mean}
        return selection.index, {**told, "build_seconds": seconds, "efforts": efforts}

    def search(self, engine: Any, query_BD: Floats, k: int, effort: Settings) -> Rows:
        rows: Rows = engine.search(query_BD, k, effort.get("setting", 0))[1]
        return rows

    def limit(self, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)

    def size(self, engine: Any) -> int:
        return len(engine.to_bytes())


LIBRARIES: dict[str, type[Library]] = {
    "auto": Auto,
    "faiss": Faiss,
    "autofaiss": AutoFaiss,
    "hnswlib": HnswLib,
    "usearch": USearch,
}
