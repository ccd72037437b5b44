"""Vectors from events alone: closed forms at their minimum, and rows as training left them.

Legend: N rows of the other side, D coordinates, U rows folded in.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.pipeline.config import parse
from embedmill.pipeline.export import build as export
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.train import build as train_inline
from embedmill.pipeline.train.fold_in import FoldIn, KnownEvents, loss_negatives, trained_with
from embedmill.pipeline.train.fold_in.fitted import Fitted
from embedmill.pipeline.views.shards import Shards
from embedmill.pipeline.views.vectors import Vectors, spec_of
from embedmill.schemas.train import Search
from tests.support.runs import planted
from tests.support.worlds import PlantedWorld

BASE: dict[str, Any] = {
    "run": {"name": "a"},
    "events": {"paths": "a.tsv", "weight": "w", "time": "t"},
    "shards": {"pairs": {}},
}
ROW_ND = np.array([[1.0, 0.0], [2.0, 1.0], [0.5, -1.0]])


def fold_in_of(objective: str, other_ND: np.ndarray[Any, Any], **train: Any) -> FoldIn:
    """Users over items of given vectors, of degree 4, 9 and 0; the mean weight is 2."""
    bias = train.pop("bias", False)
    similarity = train.pop("similarity", "dot")

    class Stored:
        count, dim = other_ND.shape

        def load(self) -> Any:
            return other_ND.astype(np.float32)

        def blocks(self) -> Any:
            yield 0, self.load()

        def column(self, name: str) -> Any:
            return other_ND[:, -1]

    class Spec:
        items, dim = other_ND.shape
        mean = 3.0

    Spec.objective, Spec.bias, Spec.similarity = objective, bias, similarity  # type: ignore[attr-defined]
    config = parse({**BASE, "train": {"objective": objective, **train}}).train
    fitted = Fitted(2.0, np.array([4.0, 9.0, 0.0]), np.array([4.0, 9.0, 1.0]), deviation=2.0)
    return FoldIn(Spec(), config, Stored(), fitted)  # type: ignore[arg-type]


def events(*rows: tuple[int, int, float]) -> KnownEvents:
    own, other, weight = zip(*rows, strict=True)
    return KnownEvents(np.array(own), np.array(other), np.array(weight))


def test_a_user_of_ials_is_the_minimum_of_its_loss() -> None:
    ials = {"regularization": 0.1, "regularization_power": 1.0, "unobserved_weight": 0.2}
    fold_in = fold_in_of("ials", ROW_ND, weight_power=1.0, ials=ials)
    # User 1 has item 0 twice and item 2; sample weights are weights over their mean, 2.
    none, own = fold_in.vectors(events((1, 0, 2.0), (1, 2, 4.0), (1, 0, 6.0)), 2)
    assert none.tolist() == [0, 0]
    vector, l2 = own.astype(np.float64), 0.1 * (2 + 0.2 * 3)
    scores = ROW_ND @ vector
    seen = sum(c * (scores[i] - 1) * ROW_ND[i] for i, c in {0: 4.0, 2: 2.0}.items())
    assert seen + 0.2 * ROW_ND.T @ scores + l2 * vector == pytest.approx([0, 0], abs=1e-5)


def test_a_user_of_spectral_is_a_product_with_its_events() -> None:
    spectral = {"user_power": 0.5, "item_power": 0.25, "popularity_power": 0.25}
    fold_in = fold_in_of("spectral", ROW_ND, weight_power=1.0, spectral=spectral)
    # Weights 2 and 6 are sample weights 1 and 3; items of degree 4 and 9; a user of degree 4.
    own = fold_in.vectors(events((0, 0, 2.0), (0, 1, 6.0)), 1)
    wanted = (ROW_ND[0] / 4**0.5 + 3 * ROW_ND[1] / 9**0.5) / 4**0.5
    assert own[0] == pytest.approx(wanted, abs=1e-6)


def test_a_user_of_ratings_is_the_minimum_of_its_errors() -> None:
    item_NE = np.array([[1.0, 0.0, 0.5], [2.0, 1.0, -0.5], [0.5, -1.0, 0.25]])
    keys = {"l2": 0.3, "l2_bias": 0.1, "l2_power": 0.5}
    fold_in = fold_in_of("rating", item_NE, bias=True, **keys)
    rated = [(0, 0, 5.0), (0, 1, 2.0), (0, 2, 4.0)]
    folded = fold_in.fold(events(*rated), 1)
    assert folded.bias_U is not None
    vector, bias = folded.vector_UE[0, :2].astype(np.float64), float(folded.bias_U[0])
    assert folded.vector_UE[0, 2] == 1  # meets an item's bias
    error_M = np.array([3.0 + b + bias + x @ vector - r for (*x, b), (_, _, r) in
                        zip(item_NE, rated, strict=True)])  # fmt: skip
    slope = item_NE[:, :2].T @ error_M + 2.0 * 0.3 * 3**0.5 * vector  # the deviation is 2
    assert slope == pytest.approx([0, 0], abs=1e-5)
    assert error_M.sum() + 0.1 * 3**0.5 * bias == pytest.approx(0, abs=1e-5)


def test_a_user_of_item2vec_is_the_mean_of_its_items() -> None:
    mean = fold_in_of("item2vec", ROW_ND, similarity="cosine").vectors(
        events((0, 0, 1.0), (0, 1, 5.0)), 1
    )
    assert mean[0] == pytest.approx(np.array([1.5, 0.5]) / np.hypot(1.5, 0.5))


@pytest.mark.parametrize(
    ("objective", "keys"),
    [
        ("softmax", {"temperature": 1.0}),
        ("softmax", {"softmax": {"loss": "psl", "temperature": 0.4, "activation": "tanh"}}),
        ("bpr", {}),
        ("ccl", {"ccl": {"margin": -0.5, "negative_weight": 1.0}}),
    ],
)
def test_gradient_steps_lower_the_loss_of_the_mean(objective: str, keys: dict[str, Any]) -> None:
    """A user who has two of three items leaves their mean, away from the third."""
    angle = np.radians([0.0, 60.0, 120.0])
    item_ND = np.stack((np.cos(angle), np.sin(angle)), 1)
    own = fold_in_of(objective, item_ND, **keys).vectors(events((1, 0, 1.0), (1, 1, 1.0)), 2)
    assert own[0].tolist() == [0, 0]
    direction = own[1] / np.linalg.norm(own[1])
    mean = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    assert direction @ item_ND[2] < mean @ item_ND[2] - 0.02
    assert min(item_ND[:2] @ direction) > 0


@pytest.mark.parametrize(("clustered", "off"), [(1 << 17, 0.01), (300, 0.1)])
def test_means_of_clusters_stand_for_the_sum_over_all_items(
    clustered: int, off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """600 items, of which 599 have events, beside 6 planted directions; one has a bias of 2."""
    monkeypatch.setattr(loss_negatives, "_CLUSTERS", 24)
    monkeypatch.setattr(loss_negatives, "_CLUSTERED", clustered)
    random = np.random.default_rng(5)
    item_ND = random.normal(size=(6, 8)).repeat(100, 0) + random.normal(0, 0.05, (600, 8))
    bias_N = np.where(np.arange(600) == 3, 2.0, 0.0)
    fold_in = fold_in_of("softmax", np.column_stack((item_ND, bias_N)), bias=True, temperature=0.5)
    count_N = np.where(np.arange(600) == 1, 0.0, 5.0)
    found = replace(fold_in, fitted=Fitted(1.0, count_N, count_N)).clusters
    assert len(found.log_weight_K) <= 24
    user_UD = random.normal(size=(9, 8))
    score_UN = (user_UD @ item_ND.T + bias_N)[:, count_N > 0] / 0.5
    exact_U = np.logaddexp.reduce(score_UN, axis=1)
    score_UK = user_UD @ found.vector_KD.double().numpy().T / 0.5
    cluster_U = np.logaddexp.reduce(score_UK + found.log_weight_K.double().numpy(), axis=1)
    assert np.abs(cluster_U - exact_U).max() < off * np.abs(score_UN).max()


@pytest.mark.parametrize("objective", ["ials", "spectral"])
@pytest.mark.parametrize("side", ["users", "items"])
def test_rows_folded_in_from_their_own_events_are_those_of_training(
    tmp_path: Path, objective: str, side: str
) -> None:
    """A converged training is a fixed point of the closed form, on both sides.

    Without a validation part the last epoch is kept.
    """
    train = {"objective": objective, "dim": 4, "workers": 1, "launcher": "inline"}
    sweeps = {"epochs": 40, "patience": 0, "ials": {"unobserved_weight": 0.05}}
    train |= sweeps if objective == "ials" else {"spectral": {"passes": 30}}
    run = planted(tmp_path, PlantedWorld(60, 40, 4), train=train, shards={"valid": 0.0})
    train_inline(run, run.writer("train"), Quiet())
    export(run, run.writer("export"), Quiet())
    spec, shards = spec_of(run.artifact("export")), Shards(run.artifact("shards"))
    other = "items" if side == "users" else "users"
    vectors = {s: Vectors.of(run.artifact("export"), s) for s in ("users", "items")}
    config = trained_with(run.artifact("train"), run.config)
    columns = [f"{one.removesuffix('s')}_row" for one in (side, other)]
    parts = shards.concatenated(["train"], range(shards.partitions), [*columns, "weight"])
    folded = FoldIn.of(spec, config, shards, vectors[other], side).vectors(
        KnownEvents(*parts), spec.count(side)
    )
    trained, some = vectors[side].load(), np.unique(parts[0])
    assert np.abs(folded[some] - trained[some]).max() < 0.05 * np.abs(trained).max()


def test_after_a_search_the_chosen_settings_count() -> None:
    ials = {"regularization": 0.25, "unobserved_weight": 0.125}
    chosen = parse({**BASE, "train": {"objective": "ials", "dim": 8, "ials": ials}}).train
    search = Search(trials=(), chosen=chosen.model_dump(mode="json"))

    class Stored:
        def has(self, path: str) -> bool:
            return True

        def read_json(self, file: Any) -> Search:
            return search

    train = trained_with(Stored(), parse(BASE))  # type: ignore[arg-type]
    assert (train.objective, train.dim, train.ials) == ("ials", 8, chosen.ials)
