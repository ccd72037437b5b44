"""Gates: which names there are, and when one has passed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from embedmill.pipeline.config import Config
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.evaluate import check_gates, judge, metric_names
from tests.support.worlds import config


def gated(objective: str = "softmax", **gates: Mapping[str, float]) -> Config:
    evaluate = {"ks": [10], "gates": gates}
    return config("runs", "log.tsv", evaluate=evaluate, train={"objective": objective})


@pytest.mark.parametrize(
    ("section", "wanted", "metrics", "got", "passed"),
    [
        ("over_popularity", 1.5, {"recall@10": 0.3, "popularity.recall@10": 0.1}, 3.0, True),
        ("over_popularity", 1.5, {"recall@10": 0.1, "popularity.recall@10": 0.1}, 1.0, False),
        ("over_popularity", 1.5, {"recall@10": 0.1, "popularity.recall@10": 0.0}, None, True),
        ("over_popularity", 1.5, {"recall@10": 0.0, "popularity.recall@10": 0.0}, None, False),
        ("over_popularity", 0.0, {}, None, False),
        ("least", 0.3, {"recall@10": 0.3}, 0.3, True),
        ("least", 0.3, {"recall@10": 0.2999}, 0.2999, False),
        ("least", 0.0, {}, None, False),
        ("most", 0.3, {"recall@10": 0.3}, 0.3, True),
        ("most", 0.3, {"recall@10": 0.31}, 0.31, False),
        ("most", 9.0, {}, None, False),
    ],
)
def test_a_gate(
    section: str, wanted: float, metrics: dict[str, float], got: float | None, passed: bool
) -> None:
    (gate,) = judge(gated(**{section: {"recall@10": wanted}}), metrics, {"recall@10": (0.0, 1.0)})
    assert gate.gate == section
    assert gate.metric == "recall@10"
    assert gate.wanted == wanted
    assert gate.got == (None if got is None else pytest.approx(got))
    assert gate.passed is passed


def test_no_gates_no_verdict() -> None:
    assert judge(gated(), {"recall@10": 1.0}, {}) == []


def test_gates_on_intervals_ask_their_worse_end() -> None:
    every = {"least": {"recall@10": 0.3, "index.recall@10": 0.9}, "most": {"recall@10": 0.3}}
    config = gated(**every, over_popularity={"recall@10": 2.0}, interval=True)
    metrics = {"recall@10": 0.3, "index.recall@10": 0.9, "popularity.recall@10": 0.14}
    found = judge(config, metrics, {"recall@10": (0.25, 0.35)})
    assert [(one.gate, one.got, one.passed) for one in found] == [
        ("over_popularity", pytest.approx(0.25 / 0.14), False),
        ("least", 0.9, True),
        ("least", 0.25, False),
        ("most", 0.35, False),
    ]


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (
            {"least": {"recal@10": 1}},
            r"gates\.least: no metric 'recal@10'; did you mean 'recall@10",
        ),
        ({"most": {"rmse": 1}}, r"gates\.most: no metric 'rmse'"),
        ({"over_popularity": {"index.recall@10": 1}}, r"over_popularity: no metric"),
        ({"least": {"ndcg@20": 1}}, r"allowed: .*ndcg@10"),
    ],
)
def test_names_that_a_run_will_not_have(gates: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_gates(gated(**gates))


def test_names_that_a_run_will_have() -> None:
    check_gates(gated("rating", most={"rmse": 1, "mae.mean_baseline": 9}))
    check_gates(
        gated(
            over_popularity={"ndcg@10": 1},
            least={"through_index.recall@10": 0, "index.recall@10": 0.9, "coverage@10": 0},
        )
    )
    assert "rmse" not in metric_names(gated())
