"""Section train: objective, optimizer, schedule, workers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from embedmill.pipeline.config.section import ELSEWHERE, Names, Section

__all__ = ["CclConfig", "IalsConfig", "Item2VecConfig", "SmoothingConfig", "TrainConfig"]


def _workers(value: Any) -> Any:
    """[2, 8] is "2-8", and "3" is 3; the rest is judged with the section."""
    if isinstance(value, list | tuple):
        return "-".join(str(one) for one in value)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return str(value) if isinstance(value, bool | float) else value


Workers = Annotated[int | str, BeforeValidator(_workers)]
_WORKER_RANGE = re.compile(r"([1-9]\d{0,5})-([1-9]\d{0,5})")


class CclConfig(Section):
    """For train.objective = 'ccl', the cosine contrastive loss."""

    margin: float = Field(
        0.4, ge=-1, lt=1, description="a negative counts by how far its cosine is above it"
    )
    negative_weight: float = Field(
        50.0, gt=0, description="of the mean over the negatives; the positive has 1"
    )


class IalsConfig(Section):
    """For train.objective = 'ials': implicit alternating least squares, an epoch a sweep."""

    regularization: float = Field(
        0.003, gt=0, description="of a row, times (its pairs + unobserved pairs' weight) to a power"
    )
    regularization_power: float = Field(
        1.0, ge=0, le=2, description="that power: 0 for all rows alike, 1 by frequency"
    )
    unobserved_weight: float = Field(
        0.01, gt=0, description="of a pair without events; one with events has their weight"
    )
    block: int = Field(0, ge=0, description="dimensions solved for together; 0: all of them")
    cg_steps: int = Field(3, ge=1, le=1000, description="of conjugate gradients, in each block")


class Item2VecConfig(Section):
    """For train.objective = 'item2vec' and 'item2vec-softmax', over the pairs of shards.pairs."""

    per_pair: float = Field(
        5.0, gt=0, description="item2vec: the step's negatives weigh as so many for each pair"
    )
    history: int = Field(
        0, ge=0, description="a user is the mean of the last so many of its items; 0: of all"
    )


class SmoothingConfig(Section):
    """Item vectors get a share of their users', for softmax with similarity = 'cosine'.

    v + weight e^-item_power sum d^-user_power u, with degrees d of users and e of items.
    """

    weight: float = Field(
        0.25,
        ge=0,
        le=100,
        description="0: none; 1 where users have few events and no order in time",
    )
    user_power: float = Field(0.5, ge=0, le=2)
    item_power: float = Field(0.7, ge=0, le=2, description="more keeps popular items from the top")


# What an objective begins with, where the config says nothing else: for item2vec, the paper's.
_PAIRS_DEFAULTS = {"similarity": "dot", "temperature": 1.0, "weight_power": 1.0}
_OBJECTIVE_DEFAULTS: dict[str, dict[str, Any]] = {
    "softmax": {
        "negatives": 512,
        "optimizer": "adam",
        "learning_rate": 0.01,
        "schedule": "linear",
    },
    "bpr": {"similarity": "dot", "temperature": 1.0},
    "item2vec": {**_PAIRS_DEFAULTS, "negatives_power": 0.75},
    "item2vec-softmax": _PAIRS_DEFAULTS,
}


class TrainConfig(Section):
    """Training: objective, optimizer, schedule.

    'ials' has no steps of events: it uses neither batch_size, similarity, negatives and their
    keys, optimizer, learning_rate, schedule, warmup_steps, l2 nor bias. 'ccl' uses neither
    similarity, temperature, logq nor bias, 'bpr' no logq, and its defaults are similarity =
    'dot' and temperature = 1 (as in its paper). 'item2vec' and
    'item2vec-softmax' have other defaults: similarity = 'dot', temperature = 1, weight_power = 1
    (a pair counts as often as it was met), and the former negatives_power = 0.75.
    """

    objective: str = Field(
        "softmax", description="a name in embedmill.pipeline.train.objectives.objectives.OBJECTIVES"
    )
    dim: int = Field(64, ge=1, le=4096)
    epochs: int = Field(20, ge=1, description="ials: sweeps over users and items")
    batch_size: int = Field(2048, ge=1, description="events of a global step, over all workers")
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: float = Field(0.1, gt=0, description="scores are divided by it")
    negatives: int = Field(256, ge=0, description="shared by the whole global batch")
    negatives_power: float = Field(
        0.0, ge=0, le=2, description="drawn by count to this power: 0 uniform, 1 by count"
    )
    in_batch: bool = Field(
        False, description="items of the global batch are negatives too, beside those drawn"
    )
    in_batch_negatives: int = Field(
        0, ge=0, description="with in_batch: so many of the batch's events, by lot; 0: all"
    )
    logq: bool = Field(True, description="correct for how often a negative is drawn")
    optimizer: str = Field(
        "adagrad", description="a name in embedmill.pipeline.train.tables.optimizers.OPTIMIZERS"
    )
    learning_rate: float = Field(0.1, gt=0)
    schedule: str = Field(
        "constant", description="a name in embedmill.pipeline.train.tables.optimizers.SCHEDULES"
    )
    warmup_steps: int = Field(0, ge=0)
    l2: float = Field(
        0.0, ge=0, description="that each event puts on its user's and its item's row; not ials"
    )
    l2_power: float = Field(
        1.0,
        ge=0,
        le=2,
        description="an epoch's l2 of a row grows with its events to this power; 0: alike for all",
    )
    l2_bias: float | None = Field(None, ge=0, description="of biases; absent: l2, as of vectors")
    weight_power: float = Field(
        0.0, ge=0, le=4, description="not rating: an event counts weight to this power; 0: once"
    )
    bias: bool = Field(False, description="softmax: items have a bias; ratings always have")
    init: Literal["spectral", "normal"] = Field(
        "spectral",
        description="tables begin with singular vectors of the events, or with normal values; "
        "spectral is for objectives that rank by steps, others begin normal",
    )
    init_scale: float = Field(
        0.0, ge=0, description="standard deviation; 0 for dim ** -0.5 (ials: a tenth of it)"
    )
    metric: str = Field("", description="chosen on validation; empty: ndcg@10, or rmse for ratings")
    patience: int = Field(5, ge=0, description="epochs without improvement; 0 never stops early")
    refit: bool = Field(
        False, description="then train anew on train and validation events, to the best epoch"
    )
    valid_users: int = Field(10000, ge=1, description="at most so many in validation")
    workers: Workers = Field(
        2,
        json_schema_extra=ELSEWHERE,
        description="a number; auto: as many as the cluster has room for; 2-8: as many as there "
        "is room for while it trains, at least 2",
    )
    threads: int = Field(1, ge=1, json_schema_extra=ELSEWHERE, description="torch, per worker")
    launcher: Literal["ray", "inline"] = Field(
        "ray", json_schema_extra=ELSEWHERE, description="inline: in this process, one worker"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", json_schema_extra=ELSEWHERE)
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="softmax: what the factors of its matrix products are rounded to; tables, "
        "sums and updates stay in float32",
    )
    tables: Literal["auto", "memory", "mapped"] = Field(
        "auto",
        json_schema_extra=ELSEWHERE,
        description="in memory, or in mapped files of a local disk; auto: those that do not fit",
    )
    scratch: str = Field(
        "",
        json_schema_extra=ELSEWHERE,
        description="folder of mapped tables; empty: the run's, or a temporary one if not local",
    )
    checkpoint_steps: int = Field(
        0, ge=0, json_schema_extra=ELSEWHERE, description="0: at the end of each epoch"
    )
    checkpoint_copy_mib: int = Field(
        4096,
        ge=0,
        json_schema_extra=ELSEWHERE,
        description="per worker: tables up to this size, and to half of the free memory, are "
        "copied for a checkpoint and written while training goes on; larger ones hold it up",
    )
    max_failures: int = Field(3, ge=0, json_schema_extra=ELSEWHERE)
    track: Names = Field(
        (),
        json_schema_extra=ELSEWHERE,
        description="names in train.logs.trackers.TRACKERS that show the log as it grows",
    )
    log_steps: int = Field(
        0,
        ge=0,
        json_schema_extra=ELSEWHERE,
        description="steps per line of train/log.jsonl; 0: at least 10, for a thousand lines",
    )
    smoothing: SmoothingConfig = SmoothingConfig()
    ials: IalsConfig = IalsConfig()
    ccl: CclConfig = CclConfig()
    item2vec: Item2VecConfig = Item2VecConfig()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {**_OBJECTIVE_DEFAULTS.get(str(tree.get("objective", "softmax")), {}), **tree}

    @model_validator(mode="after")
    def _blocks(self) -> TrainConfig:
        if self.ials.block > self.dim:
            raise ValueError(f"ials.block: at most train.dim (it is {self.dim}), or 0 for all")
        return self

    @property
    def worker_range(self) -> tuple[int, int | None]:
        """Least and greatest number of workers; None: as many as there is room for."""
        if isinstance(self.workers, int):
            return self.workers, self.workers
        found = _WORKER_RANGE.fullmatch(self.workers)
        return (int(found[1]), int(found[2])) if found else (1, None)

    @model_validator(mode="after")
    def _worker_range(self) -> TrainConfig:
        least, most = self.worker_range
        named = isinstance(self.workers, int) or self.workers == "auto" or most is not None
        if not named or least < 1 or (most is not None and most < least):
            raise ValueError(
                f"workers: a number from 1, 'auto', or a range such as '2-8', got {self.workers!r}"
            )
        return self

    @model_validator(mode="after")
    def _negatives(self) -> TrainConfig:
        if self.in_batch_negatives and not self.in_batch:
            raise ValueError("in_batch_negatives: needs train.in_batch = true")
        if self.in_batch_negatives > self.batch_size:
            raise ValueError(
                f"in_batch_negatives: at most train.batch_size (it is {self.batch_size}), "
                "or 0 for all"
            )
        return self
