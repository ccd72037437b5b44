"""What every kind of index must do; an entry of INDEXES inherits these tests."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedmill.pipeline.config import IndexConfig
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.index import INDEXES
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.index.kinds import inverted, kind_of
from embedmill.pipeline.index.measure import ground_truth, recall
from embedmill.pipeline.index.searchable import FaissIndex

Floats = npt.NDArray[np.float32]
# Of ten nearest, on clusters: a quantizer of one byte per two coordinates finds fewer.
FLOOR = {
    "flat": 1.0, "fastscan": 0.98, "hnsw": 0.98, "hnswsq8": 0.98, "ivfflat": 0.98,
    "ivfsq8": 0.95, "ivfpq": 0.75, "opqivfpq": 0.98,
}  # fmt: skip
# By which a score may differ from the inner product: of whole vectors, of 16 bits a coordinate,
# of 8, of codes.
SLACK = {
    "flat": 1e-5, "fastscan": 2e-3, "hnsw": 1e-5, "hnswsq8": 1e-5, "ivfflat": 1e-5,
    "ivfsq8": 0.03, "ivfpq": 0.25, "opqivfpq": 2e-3,
}  # fmt: skip


def planted(items: int, dim: int = 16, clusters: int = 20, seed: int = 0) -> Floats:
    """Unit vectors around cluster centres."""
    draw = np.random.default_rng(seed)
    centre = draw.standard_normal((clusters, dim))
    vector_ND = centre[np.arange(items) % clusters] + 0.5 * draw.standard_normal((items, dim))
    return (vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)).astype(np.float32)


def make(kind: str, item_ND: Floats, **settings: Any) -> FaissIndex:
    index_kind = INDEXES[kind]
    parameters = index_kind.plan(*item_ND.shape, IndexConfig(kind=kind, **settings))
    return index_kind.build(item_ND, parameters, seed=1)


@pytest.fixture(scope="module", params=list(INDEXES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def item_ND() -> Floats:  # noqa: N802 (a shape)
    return planted(3000)


@pytest.fixture(scope="module")
def index(kind: str, item_ND: Floats) -> FaissIndex:
    return make(kind, item_ND)


def test_recall_on_planted_clusters(kind: str, index: FaissIndex, item_ND: Floats) -> None:
    truth = ground_truth(planted(100, seed=1), item_ND)
    assert recall(index, truth) >= FLOOR[kind]


def test_recall_does_not_fall_with_the_knob(index: FaissIndex, item_ND: Floats) -> None:
    truth = ground_truth(planted(100, seed=1), item_ND)
    found = [recall(index, truth, setting) for setting in index.settings()]
    assert all(later >= earlier - 0.02 for earlier, later in itertools.pairwise(found))


def test_an_item_finds_itself_first(kind: str, index: FaissIndex, item_ND: Floats) -> None:
    _, rows = index.search(item_ND[:200], 1)
    assert (rows[:, 0] == np.arange(200)).mean() >= (0.6 if kind == "ivfpq" else 1.0)


def test_save_and_load_answer_alike(kind: str, index: FaissIndex, item_ND: Floats) -> None:
    again = INDEXES[kind].load(index.to_bytes(), index.parameters)
    for one, other in zip(
        index.search(item_ND[:50], 10), again.search(item_ND[:50], 10), strict=True
    ):
        assert np.array_equal(one, other)


def test_the_size_is_as_estimated(kind: str, index: FaissIndex, item_ND: Floats) -> None:
    size = len(index.to_bytes())
    estimate = INDEXES[kind].estimate_bytes(*item_ND.shape, index.parameters)
    assert abs(size - estimate) <= 0.1 * size + 4096


def test_scores_fall_and_rows_are_distinct(index: FaissIndex, item_ND: Floats) -> None:
    scores, rows = index.search(item_ND[:50], 20)
    assert scores.dtype == np.float32
    assert rows.dtype == np.int64
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(row)) == 20 for row in rows.tolist())


def test_scores_are_inner_products(kind: str, index: FaissIndex, item_ND: Floats) -> None:
    scores, rows = index.search(item_ND[:50], 5)
    exact = np.einsum("bkd,bd->bk", item_ND[rows], item_ND[:50])
    assert np.abs(scores - exact).max() <= SLACK[kind]


@pytest.mark.parametrize("items", [1, 2, 7, 60, 300])
def test_more_answers_than_items(kind: str, items: int) -> None:
    item_ND = planted(items)
    scores, rows = make(kind, item_ND).search(item_ND[:1], items + 5)
    assert sorted(rows[0, :items].tolist()) == list(range(items))
    assert rows[0, items:].tolist() == [-1] * 5
    assert np.isneginf(scores[0, items:]).all()


def test_no_queries(index: FaissIndex) -> None:
    scores, rows = index.search(np.empty((0, 16), np.float32), 3)
    assert scores.shape == rows.shape == (0, 3)


@pytest.mark.parametrize("dim", [1, 3, 17])
def test_odd_dimensions(kind: str, dim: int) -> None:
    item_ND = planted(500, dim=dim)
    _, rows = make(kind, item_ND).search(item_ND[:10], 3)
    assert (rows >= 0).all()


def test_another_operating_point_is_the_same_index(index: FaissIndex, item_ND: Floats) -> None:
    least, most = index.limits()
    for variant in index.variants():
        cheap, dear = (
            index.with_parameters({**variant, index.search_parameter: value})
            for value in (least, most)
        )
        assert cheap.to_bytes() == dear.to_bytes() == index.to_bytes()
        assert 0 < cheap.cost_us(item_ND[:50], 10) <= dear.cost_us(item_ND[:50], 10)
    assert index.with_parameters({}).parameters == index.parameters


def test_more_answers_than_it_was_tuned_for(kind: str, index: FaissIndex, item_ND: Floats) -> None:
    """At a setting that finds nine in ten of ten, no fewer of eighty."""
    query_BD = planted(100, seed=1)
    settings = index.settings() or [0]
    ten, eighty = (ground_truth(query_BD, item_ND, k) for k in (10, 80))
    for setting in settings:
        found = recall(index, ten, setting)
        if found >= 0.9:
            assert recall(index, eighty, setting) >= found - 0.05
            return
    assert kind == "ivfpq"


def test_costs_are_counted_alike_each_time(index: FaissIndex, item_ND: Floats) -> None:
    found = set()
    for count in (1, 2, 2):
        with faiss_threads(count):
            found.add(index.cost_us(item_ND[:50], 10))
    assert len(found) == 1


def test_more_items_cost_more(index: FaissIndex, item_ND: Floats) -> None:
    costs = [index.cost_us(item_ND[:50], 10, n) for n in (0, 3000, 12_000, 300_000)]
    assert costs[0] == costs[1] < costs[2] < costs[3]


def test_candidates_are_those_of_its_plan(kind: str, item_ND: Floats) -> None:
    index_kind, config = INDEXES[kind], IndexConfig(kind=kind)
    every = index_kind.candidates(*item_ND.shape, config)
    assert all(one.keys() == index_kind.plan(*item_ND.shape, config).keys() for one in every)
    sizes = [index_kind.estimate_bytes(*item_ND.shape, one) for one in every]
    assert len(index_kind.candidates(300, 16, config)) == len(every)
    assert all(size > 0 for size in sizes)
    assert all(index_kind.build_seconds(*item_ND.shape, one) > 0 for one in every)


@pytest.mark.parametrize("place", range(6))
def test_the_size_of_every_candidate_is_as_estimated(kind: str, place: int) -> None:
    item_ND, index_kind = planted(2000, dim=10), INDEXES[kind]
    every = index_kind.candidates(*item_ND.shape, IndexConfig(kind=kind))
    for parameters in every[place : place + 1]:
        size = len(index_kind.build(item_ND, parameters, seed=1).to_bytes())
        assert (
            abs(size - index_kind.estimate_bytes(*item_ND.shape, parameters)) <= 0.1 * size + 4096
        )


def test_lengths_matter(kind: str) -> None:
    """An inner product prefers the longer of two that point alike; biases work so."""
    item_ND = planted(400)
    item_ND[7] = 3 * item_ND[8]
    _, rows = make(kind, item_ND).search(item_ND[8:9], 1)
    assert rows.tolist() == [[7]]


def test_the_same_bytes_on_one_and_two_threads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inverted, "SINGLE_THREADED", 0)
    item_ND, digests = planted(1000, dim=4), set()
    for count in (1, 2, 2):
        with faiss_threads(count):
            digests.add(hashlib.sha256(make(kind, item_ND).to_bytes()).hexdigest())
    assert len(digests) == 1


def test_equal_items_come_by_lower_row(kind: str) -> None:
    item_ND = np.ones((50, 4), np.float32)
    _, rows = make(kind, item_ND).search(item_ND[:1], 50)
    assert rows[0].tolist() == list(range(50))


def test_vectors_of_zero(kind: str) -> None:
    item_ND = planted(300)
    item_ND[:10] = 0
    scores, rows = make(kind, item_ND).search(np.zeros((1, 16), np.float32), 5)
    assert (rows >= 0).all()
    assert np.isfinite(scores).all()


def test_few_items_get_few_lists() -> None:
    plan = INDEXES["ivfpq"].plan
    assert plan(30, 8, IndexConfig()) == {"lists": 1, "probes": 1, "segments": 4}
    assert plan(1_000_000, 64, IndexConfig()) == {"lists": 4000, "probes": 1000, "segments": 32}
    asked = IndexConfig.model_validate({"ivfpq": {"lists": 100, "probes": 200, "segments": 3}})
    assert plan(390, 8, asked) == {"lists": 10, "probes": 10, "segments": 3}


def test_three_graphs_are_tried_unless_one_is_asked_for() -> None:
    def graphs(**hnsw: int) -> list[tuple[int, int, int]]:
        asked = IndexConfig.model_validate({"hnsw": hnsw})
        every = INDEXES["hnswsq8"].candidates(5000, 16, asked)
        return [(one["refine_bits"], one["m"], one["ef_construction"]) for one in every]

    def each(*found: tuple[int, int]) -> list[tuple[int, int, int]]:
        return [(bits, *graph) for bits in (32, 16, 0) for graph in found]

    assert graphs() == each((32, 64), (32, 40), (16, 110))
    assert graphs(ef_construction=100) == each((32, 100))
    assert graphs(m=8) == each((8, 64))
    assert graphs(m=8, ef_construction=100) == each((8, 100))


def test_a_walk_over_codes_is_ranked_anew() -> None:
    """Codes alone confuse near neighbours; whole vectors behind them do not."""
    item_ND, query_BD = planted(5000, dim=20), planted(200, dim=20, seed=1)
    item_ND[0] *= 20  # far out: the range of the codes, and so their step, is as much wider
    truth = ground_truth(query_BD, item_ND)

    def found(bits: int) -> float:
        # Wide enough that what walks miss near the far one does not decide.
        asked = {"refine": 4, "refine_bits": bits, "ef_search": 300}
        return recall(make("hnswsq8", item_ND, hnsw=asked), truth)

    assert found(0) < 0.89
    assert found(16) > 0.91
    assert found(32) > 0.91


def test_no_more_is_ranked_anew_than_a_walk_has_seen(item_ND: Floats) -> None:
    """So a setting as low as ten stays as cheap, whatever `refine` says."""
    index = make("hnswsq8", item_ND, hnsw={"refine": 4})
    few, same = (index.with_parameters({"refine": times, "ef_search": 12}) for times in (4, 2))
    for one, other in zip(few.search(item_ND[:50], 10), same.search(item_ND[:50], 10), strict=True):
        assert np.array_equal(one, other)


def test_more_segments_than_coordinates() -> None:
    asked = IndexConfig.model_validate({"ivfpq": {"segments": 9}})
    with pytest.raises(ConfigError, match=r"index\.ivfpq\.segments: 9 segments of 8"):
        INDEXES["ivfpq"].plan(100, 8, asked)


def test_an_unknown_kind_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no index 'annoy'; allowed: auto, flat, fastscan"):
        kind_of("annoy")


def test_threads_are_put_back() -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    with faiss_threads(1):
        assert faiss.omp_get_max_threads() == 1
        with faiss_threads(0):
            assert faiss.omp_get_max_threads() == 1
    assert faiss.omp_get_max_threads() == before
