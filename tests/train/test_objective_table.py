"""What each entry of the table of objectives is made of, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.config.objectives import OBJECTIVE_KEYS
from embedmill.pipeline.train.losses import ccl, negative_sampling, rating, sampled_softmax
from embedmill.pipeline.train.objectives import OBJECTIVES
from embedmill.pipeline.train.objectives.closed_form_method import SpectralMethod
from embedmill.pipeline.train.objectives.example_sources import EVENTS
from embedmill.pipeline.train.objectives.gradient_descent import GradientDescent
from embedmill.pipeline.train.objectives.least_squares import AlternatingLeastSquares
from embedmill.pipeline.train.objectives.prediction_tasks import RANKING, RATINGS
from embedmill.pipeline.train.objectives.training_method import Calibration, NegativeCounts
from embedmill.pipeline.train.plan import StepPlan, TrainingSize

RANKING_METRICS = {"ndcg@10", "recall@10", "hit_rate@10", "mrr@10"}


def config_of(objective: str, **keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({"objective": objective, **keys})


@pytest.mark.parametrize(
    ("objective", "keys", "similarity"),
    [
        ("softmax", {}, "dot"),  # smoothed: the length of a vector counts
        ("softmax", {"smoothing": {"weight": 0}}, "cosine"),
        ("softmax", {"similarity": "dot"}, "dot"),
        ("bpr", {}, "dot"),
        ("ccl", {"smoothing": {"weight": 0}}, "cosine"),
        ("item2vec", {}, "cosine"),  # trained by inner products
        ("item2vec-softmax", {}, "cosine"),
        ("rating", {}, "dot"),
        ("ials", {}, "dot"),
        ("spectral", {}, "dot"),
    ],
)
def test_how_published_vectors_are_compared(
    objective: str, keys: dict[str, Any], similarity: str
) -> None:
    config = config_of(objective, **keys)
    assert OBJECTIVES[objective].published_similarity(config) == similarity


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_keys_of_the_config_follow_from_what_the_objective_is_made_of(objective: str) -> None:
    """The table of keys and the table of objectives say the same of each objective."""
    one, keys = OBJECTIVES[objective], OBJECTIVE_KEYS[objective]
    steps = one.method if isinstance(one.method, GradientDescent) else None
    negatives = steps is not None and steps.negatives
    events = one.source is EVENTS
    loss = steps.loss if steps else None
    sweeps = isinstance(one.method, AlternatingLeastSquares)
    said = {
        "bias": one.bias is None,
        "similarity": one.similarity is None,
        "temperature": one.similarity is None,
        "init": one.spectral_start is not None,
        "smoothing": one.uses_graph,
        "history": not events,
        "weight_power": one.task is RANKING,
        "negatives": negatives,
        "negatives_power": negatives,
        "in_batch": negatives and events,
        "in_batch_negatives": negatives and events,
        "logq": loss is sampled_softmax,
        "precision": loss is sampled_softmax,
        "margin": loss is ccl,
        "negative_weight": loss is ccl,
        "negatives_per_pair": loss is negative_sampling,
        "regularization": sweeps,
        "cg_steps": sweeps,
        "ridge": isinstance(one.method, SpectralMethod),
        "l2_bias": one.bias is not False,
        "implicit_rate": loss is rating,
        **dict.fromkeys(("optimizer", "learning_rate", "l2", "batch_size"), steps is not None),
    }
    assert {key: keys.reads(key) for key in said} == said
    assert set(keys.metrics) <= ({"rmse", "mae"} if one.task is RATINGS else RANKING_METRICS)
    assert objective.startswith("item2vec") == (not events)  # as the config asks for pairs


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_graph_is_for_rankings_by_gradients_on_events(objective: str) -> None:
    config, starts = config_of(objective), ("softmax", "bpr", "ccl", "ials")
    assert OBJECTIVES[objective].starts_spectral(config) == (objective in starts)
    assert config.keys.reads("smoothing") == (objective in starts[:3])
    smoothed = objective in ("softmax", "ccl")  # the others compare by inner products
    assert OBJECTIVES[objective].is_smoothed(config) == smoothed


def test_columns_are_the_vector_and_a_bias() -> None:
    softmax, rating = OBJECTIVES["softmax"], OBJECTIVES["rating"]
    assert softmax.columns(config_of("softmax", dim=5)) == (slice(0, 5),)
    both = (slice(0, 5), slice(5, 6))
    assert softmax.columns(config_of("softmax", dim=5, bias=True)) == both
    assert rating.columns(config_of("rating", dim=5)) == both


def test_negatives_of_a_step() -> None:
    method = OBJECTIVES["softmax"].method
    for keys, counts in (
        ({"negatives": 7}, (7, 0)),
        ({"negatives": 7, "in_batch": True}, (7, 900)),  # all events of any batch
        ({"negatives": 7, "in_batch": True, "in_batch_negatives": 30}, (7, 30)),
    ):
        config = config_of("softmax", **keys)
        assert method.negative_counts(config, 900) == NegativeCounts(*counts)
    for objective in ("rating", "ials"):
        counted = OBJECTIVES[objective].method.negative_counts(config_of(objective), 900)
        assert counted == NegativeCounts(0, 0)


def test_least_squares_has_no_optimizer() -> None:
    method, config = OBJECTIVES["ials"].method, config_of("ials", dim=16)
    assert method.state_widths(config, OBJECTIVES["ials"].columns(config)) == {}
    assert method.learning_rate(config, 3, 10) == 0
    assert method.initial_scale(16) == pytest.approx(0.1 / 4)
    assert method.log_interval(10**6) == 1
    plan = method.plan((10, 20), config)
    assert method.calibration(plan) == Calibration(0, plan.steps)
    assert "train.ials.regularization" in method.divergence_advice(config)


def test_passes_in_closed_form_have_no_optimizer() -> None:
    config = config_of("spectral", dim=16)
    method = OBJECTIVES["spectral"].method
    assert (config.epochs, config.checkpoint_steps) == (1, 1)
    assert method.state_widths(config, OBJECTIVES["spectral"].columns(config)) == {}
    assert method.negative_counts(config, 900) == NegativeCounts(0, 0)
    assert method.plan((10, 20), config).steps == config.spectral.passes
    assert "train.weight_power" in method.divergence_advice(config)


def test_a_log_has_about_a_thousand_lines_of_ten_steps_or_more() -> None:
    method = OBJECTIVES["softmax"].method
    assert [method.log_interval(steps) for steps in (50, 10_000, 123_456)] == [10, 10, 124]
    assert method.calibration(StepPlan((9,), 3)) == Calibration(2, 2)


def test_sizes_of_events_and_of_pairs() -> None:
    vocab = {"users": 9, "items": 4}
    shards = {"train": 50, "valid": 6, "pairs": 70, "pairs_with_valid": 90}
    events, pairs = OBJECTIVES["softmax"].source, OBJECTIVES["item2vec"].source
    assert events.stored_size(vocab, shards) == TrainingSize(9, 4, 50, 6)
    assert pairs.stored_size(vocab, shards) == TrainingSize(4, 4, 90, 56, derived=9)
    assert (events.epoch_examples(shards), pairs.epoch_examples(shards)) == (50, 70)
    assert pairs.given_size(9, 4, 50, 6) == TrainingSize(4, 4, 50, 6, derived=9)


def test_ratings_improve_downwards() -> None:
    ranking, ratings = OBJECTIVES["softmax"].task, OBJECTIVES["rating"].task
    assert ranking.is_better(0.3, 0.2)
    assert not ratings.is_better(0.3, 0.2)


def test_losses_take_their_settings_from_the_config() -> None:
    keys = {"temperature": 0.2, "l2": 0.3, "negatives": 5}
    settings = OBJECTIVES["softmax"].loss_settings(config_of("softmax", **keys), (0.0, 1.0))
    assert (settings.similarity, settings.temperature, settings.l2) == ("cosine", 0.2, 0.3)
    settings = OBJECTIVES["rating"].loss_settings(config_of("rating"), (3.5, 1.0))
    assert (settings.biased, settings.mean) == (True, 3.5)
