"""Which keys of section train each objective reads, and where they stand in the TOML.

[train] has the keys that every objective reads, and those of training by steps, which
all but ials and spectral have. What only some losses know stands in the objective's own section:
[train.softmax], [train.bpr], and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["DEFAULT_OBJECTIVE", "OBJECTIVE_KEYS", "ObjectiveKeys", "ObjectiveName", "readers_of"]

ObjectiveName = Literal[
    "auto", "softmax", "bpr", "ccl", "item2vec", "item2vec-softmax", "rating", "ials", "spectral"
]
DEFAULT_OBJECTIVE = "auto"

_STEPS = (
    "batch_size", "optimizer", "learning_rate", "schedule", "warmup_steps", "l2", "l2_power"
)  # fmt: skip
_RANKING_STEPS = (*_STEPS, "weight_power")
_REPLAY = ("replay",)  # each event is an example of its own
_SCORE = ("similarity", "temperature")
_NEGATIVES = ("negatives", "negatives_power")
_IN_BATCH = ("in_batch", "in_batch_negatives")
_BIAS = ("bias", "l2_bias")
_LOSS = ("loss", "temperature_ratio", "activation")
_TOP_K = ("top_k", "top_k_temperature", "top_k_epochs")
_GRAPH = ("init", "smoothing")  # both use the graph of users and items
_RANKING_METRICS = ("ndcg@10", "recall@10", "hit_rate@10", "mrr@10")
# A pair counts as often as it was met; scores as in the paper.
_PAIR_DEFAULTS = {"similarity": "dot", "temperature": 1.0, "weight_power": 1.0}


@dataclass(frozen=True)
class ObjectiveKeys:
    """The keys that one objective reads beside those that every objective reads.

    Attributes:
        section: its own section is [train.<section>].
        shared: keys of [train] that it reads and some other objective does not.
        own: keys of its own section.
        defaults: by key of [train] or of its own section, where it has a default that
            differs from the one in `TrainConfig`.
        metrics: those that can choose the best epoch; the first by default.
    """

    section: str
    shared: tuple[str, ...]
    own: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = _RANKING_METRICS

    def reads(self, key: str) -> bool:
        """Whether the objective reads `key`, of [train] or of its own section."""
        return key in self.shared or key in self.own

    def path(self, key: str) -> str:
        """Where `key` stands for this objective: "train.softmax.temperature"."""
        return f"train.{self.section}.{key}" if key in self.own else f"train.{key}"


OBJECTIVE_KEYS: dict[str, ObjectiveKeys] = {
    "auto": ObjectiveKeys(
        "auto",
        shared=("weight_power", *_REPLAY),
        own=("budget", "trial_events"),
        # The greatest dimension; and validation must not take longer than what it measures.
        defaults={"dim": 512, "valid_users": 2500, "patience": 3},
    ),
    "softmax": ObjectiveKeys(
        "softmax",
        shared=(*_RANKING_STEPS, *_REPLAY),
        own=(
            *_LOSS, *_TOP_K, *_SCORE, *_NEGATIVES, *_IN_BATCH, "logq", *_BIAS, *_GRAPH, "precision",
        ),
        defaults={
            "negatives": 512, "optimizer": "adam", "learning_rate": 0.01, "schedule": "linear"
        },
    ),
    "bpr": ObjectiveKeys(
        "bpr",
        shared=(*_RANKING_STEPS, *_REPLAY),
        own=(*_SCORE, *_NEGATIVES, *_IN_BATCH, *_BIAS, *_GRAPH),
        defaults={"similarity": "dot", "temperature": 1.0},
    ),
    "ccl": ObjectiveKeys(
        "ccl",
        shared=(*_RANKING_STEPS, *_REPLAY),
        own=("margin", "negative_weight", *_NEGATIVES, *_IN_BATCH, *_GRAPH),
    ),
    "item2vec": ObjectiveKeys(
        "item2vec",
        shared=_RANKING_STEPS,
        own=("negatives_per_pair", "history", *_SCORE, *_NEGATIVES),
        defaults={**_PAIR_DEFAULTS, "negatives_power": 0.75},
    ),
    "item2vec-softmax": ObjectiveKeys(
        "item2vec",
        shared=_RANKING_STEPS,
        own=("history", *_SCORE, *_NEGATIVES, "logq", "precision"),
        defaults=_PAIR_DEFAULTS,
    ),
    "rating": ObjectiveKeys(
        "rating",
        shared=(*_STEPS, *_REPLAY),
        own=("l2_bias", "implicit_rate"),
        # One setting was best for sets of different sizes and densities: docs/decisions/0014.
        defaults={
            "learning_rate": 0.1, "schedule": "linear", "init_scale": 0.1, "l2": 1.2,
            "l2_power": 0.5, "l2_bias": 0.02, "batch_size": 4096, "implicit_rate": 0.05,
        },
        metrics=("rmse", "mae"),
    ),
    "ials": ObjectiveKeys(
        "ials",
        shared=("weight_power",),
        own=(
            "regularization", "regularization_power", "unobserved_weight", "block_size",
            "cg_steps", "init",
        ),
    ),
    "spectral": ObjectiveKeys(
        "spectral",
        shared=("weight_power",),
        own=("user_power", "item_power", "popularity_power", "ridge", "passes", "start_passes"),
        # A pass is long, and all that is needed to go on after it are the tables.
        defaults={"epochs": 1, "checkpoint_steps": 1},
    ),
}  # fmt: skip
assert tuple(OBJECTIVE_KEYS) == get_args(ObjectiveName)


def readers_of(key: str) -> list[str]:
    """The objectives that read `key`, or that have the section `key`; empty for neither."""
    return [name for name, keys in OBJECTIVE_KEYS.items() if keys.reads(key) or keys.section == key]
