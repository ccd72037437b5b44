"""Section train: objective, optimizer, schedule, workers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_serializer, model_validator

from embedmill.pipeline.config.auto import AutoConfig
from embedmill.pipeline.config.closed_form import SpectralConfig
from embedmill.pipeline.config.objective_sections import (
    CclConfig,
    IalsConfig,
    Item2VecConfig,
    SmoothingConfig,
)
from embedmill.pipeline.config.objectives import (
    DEFAULT_OBJECTIVE,
    OBJECTIVE_KEYS,
    ObjectiveKeys,
    ObjectiveName,
)
from embedmill.pipeline.config.section import (
    FINGERPRINT_IF_CHANGED,
    IN_FINGERPRINT_IF_READ,
    NOT_IN_FINGERPRINT,
    Names,
    Section,
)
from embedmill.pipeline.config.train_layout import sectioned_train

__all__ = ["TrainConfig"]


def _workers(value: Any) -> Any:
    """[2, 8] as "2-8" and "3" as 3; everything else is left for `TrainConfig` to judge."""
    if isinstance(value, list | tuple):
        return "-".join(str(one) for one in value)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return str(value) if isinstance(value, bool | float) else value


Workers = Annotated[
    int | str, BeforeValidator(_workers, json_schema_input_type=int | str | list[int])
]
# Keys that are read only with a value of another key (None: with any but 0), and their defaults.
_READ_WITH: dict[tuple[str, str | None], dict[str, Any]] = {
    # Of those published, 1.10 and 1.22, the one that is nearer to softmax loss.
    ("loss", "bsl"): {"temperature_ratio": 1.1},
    ("loss", "psl"): {"activation": "relu"},
    ("top_k", None): {"top_k_temperature": 1.0, "top_k_epochs": 5},
}
_WORKER_RANGE = re.compile(r"([1-9]\d{0,5})-([1-9]\d{0,5})")


def _is_read(chosen: Any, value: str | None) -> bool:
    """Whether the keys are read that go with a value of another key, or with any but 0."""
    return bool(chosen) if value is None else bool(chosen == value)


class TrainConfig(Section):
    """Training: objective, optimizer, schedule, workers.

    One field for each key. In the TOML, keys that only some objectives read stand in the
    section of the objective: train.softmax.temperature is the field `temperature`. An
    objective that does not read a key leaves it at its default here, and the key is refused in
    the TOML (see `embedmill.pipeline.config.objectives`).
    """

    objective: ObjectiveName = Field(
        "auto",
        description="what is learned; auto: trials on the validation part choose among spectral, "
        "ials and softmax, and their settings",
    )
    dim: int = Field(
        64, ge=1, le=4096, description="dimensions of the vectors; for auto, the most that it takes"
    )
    epochs: int = Field(
        20,
        ge=1,
        description="passes over the train events; for ials, sweeps over both tables; for "
        "spectral, one is enough; for auto, the most that it takes",
    )
    batch_size: int = Field(2048, ge=1, description="events of a step, over all workers")
    similarity: Literal["cosine", "dot"] = Field(
        "cosine", description="how a user and an item are compared"
    )
    temperature: float = Field(0.1, gt=0, description="scores are divided by it")
    loss: Literal["softmax", "bsl", "psl"] = Field(
        "softmax",
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="softmax: the positive is a part of the sum of the softmax; bsl: bilateral "
        "softmax loss, which leaves it out and gives the negatives' term a factor; psl: pairwise "
        "softmax loss, which compares it with each negative by an activation that grows less than "
        "e ** x",
    )
    temperature_ratio: float | None = Field(
        None,
        gt=0,
        le=10,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="with loss = 'bsl': the factor of the negatives' term, which is the ratio of "
        "the positives' temperature to the negatives'; not given: 1.1",
    )
    activation: Literal["relu", "tanh", "atan"] | None = Field(
        None,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="with loss = 'psl': the surrogate activation, 1 + d, 1 + tanh(d) or "
        "1 + arctan(d) of half a difference of cosines; not given: relu, which is 1 + d",
    )
    top_k: int = Field(
        0,
        ge=0,
        le=1000,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="SL@K: events count more where the item is among the user's top_k best, or "
        "near them, by the scores so far; 0: all count alike",
    )
    top_k_temperature: float | None = Field(
        None,
        gt=0,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="with top_k: an event's weight is the logistic function of (its score - that "
        "of the user's top_k-th best item) / top_k_temperature; not given: 1",
    )
    top_k_epochs: int | None = Field(
        None,
        ge=1,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="with top_k: epochs between two estimates of that item's score; not given: 5",
    )
    negatives: int = Field(
        256, ge=0, description="negatives drawn for each step, shared by all its events"
    )
    negatives_power: float = Field(
        0.0,
        ge=0,
        le=2,
        description="items are drawn by their count to this power; 0: uniformly, 1: by count",
    )
    in_batch: bool = Field(
        False, description="use the items of the batch as negatives too, beside those drawn"
    )
    in_batch_negatives: int = Field(
        0,
        ge=0,
        description="with in_batch: use this many of the batch's events, chosen at random; 0: all",
    )
    logq: bool = Field(
        True, description="correct the loss for how often each negative is drawn (logQ)"
    )
    optimizer: Literal["adagrad", "adam"] = Field(
        "adagrad", description="how gradients change the tables"
    )
    learning_rate: float = Field(0.1, gt=0, description="step size at the start of the schedule")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="how the learning rate falls over all epochs; in a refit over the refit's own",
    )
    warmup_steps: int = Field(
        0, ge=0, description="steps in which the learning rate first rises from 0"
    )
    l2: float = Field(
        0.0, ge=0, description="L2 that each event puts on its user's and its item's row"
    )
    l2_power: float = Field(
        1.0,
        ge=0,
        le=2,
        description="the L2 of a row in an epoch grows with its events to this power; 0: the "
        "same for all rows",
    )
    l2_bias: float | None = Field(
        None, ge=0, description="L2 of biases; not given: l2, as for the vectors"
    )
    implicit_rate: float = Field(
        0.0,
        ge=0,
        le=10,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="learning rate of the implicit part of vectors, which says who rated what, as "
        "a share of learning_rate; 0: no implicit part",
    )
    weight_power: float = Field(
        0.0,
        ge=0,
        le=4,
        description="an event counts by its weight to this power; 0: each event counts once",
    )
    bias: bool = Field(False, description="learn a bias for each item")
    init: Literal["spectral", "normal"] = Field(
        "spectral",
        description="how tables begin: with singular vectors of the events, or with random "
        "normal values",
    )
    init_scale: float = Field(
        0.0,
        ge=0,
        description="standard deviation of the initial values; 0: dim ** -0.5, for ials a tenth "
        "of it",
    )
    metric: str = Field(
        "",
        description="metric on validation that chooses the best epoch; empty: ndcg@10, for "
        "ratings rmse",
    )
    patience: int = Field(
        5, ge=0, description="stop after this many epochs without improvement; 0: never"
    )
    refit: bool = Field(
        False,
        description="then train again from the start, on train and validation events, up to the "
        "best epoch",
    )
    start: str = Field(
        "",
        max_length=4096,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="run whose rows, biases and optimizer state training starts from, by id: its "
        "name, folder or URL, or 'published'; empty: none",
    )
    start_fallback: Literal["refuse", "cold"] = Field(
        "refuse",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="where that run cannot be used (another objective or dimension, not "
        "finished): refuse, or train cold, without it",
    )
    start_epochs: int = Field(
        0,
        ge=0,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="epochs at most when training starts from a run; 0: a quarter of epochs",
    )
    replay: float = Field(
        0.25,
        ge=0,
        le=1,
        json_schema_extra=FINGERPRINT_IF_CHANGED,
        description="share of the events of the run that training starts from that an epoch "
        "takes, drawn by a hash, beside all new events; spectral and ials always take all",
    )
    valid_users: int = Field(10000, ge=1, description="users that validation measures, at most")
    workers: Workers = Field(
        2,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="a number; auto: as many as the cluster has room for; 2-8: as many as it "
        "has room for while training runs, at least 2",
    )
    threads: int = Field(
        1, ge=1, json_schema_extra=NOT_IN_FINGERPRINT, description="torch threads of each worker"
    )
    launcher: Literal["auto", "processes", "ray", "inline"] = Field(
        "auto",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="processes: workers on this machine; ray: workers of Ray Train; inline: one "
        "worker in this process; auto: ray where RAY_ADDRESS names a cluster, else processes, or "
        "this process where spectral or ials take less long than workers to start",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", json_schema_extra=NOT_IN_FINGERPRINT, description="where workers compute"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="number type of the factors of matrix products; tables, sums and updates "
        "stay float32",
    )
    tables: Literal["auto", "memory", "mapped"] = Field(
        "auto",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="where tables are kept: in memory, or in memory-mapped files on a local "
        "disk; auto: in files where memory is too small",
    )
    scratch: str = Field(
        "",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="local folder for memory-mapped tables; empty: the run's folder, or a "
        "temporary one where that is not local",
    )
    checkpoint_steps: int = Field(
        0,
        ge=0,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="steps between checkpoints; 0: one at the end of each epoch",
    )
    checkpoint_copy_mib: int = Field(
        4096,
        ge=0,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="tables of a worker up to this size (and half of the free memory) are copied "
        "and written while training goes on; larger ones are written while it waits",
    )
    max_failures: int = Field(
        3,
        ge=0,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="times that failed workers are started again",
    )
    track: Names = Field(
        (),
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="trackers that show the training log while it grows: tensorboard, mlflow",
    )
    log_steps: int = Field(
        0,
        ge=0,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="steps for each line of train/log.jsonl; 0: at least 10, and about a "
        "thousand lines",
    )
    auto: AutoConfig = Field(AutoConfig(), json_schema_extra=IN_FINGERPRINT_IF_READ)
    smoothing: SmoothingConfig = SmoothingConfig()
    ials: IalsConfig = Field(
        IalsConfig(),
        # Its first defaults: fingerprints of objectives that do not read it have them.
        json_schema_extra={
            "unread_in_fingerprint": {"regularization": 0.003, "unobserved_weight": 0.01}
        },
    )
    ccl: CclConfig = CclConfig()
    item2vec: Item2VecConfig = Item2VecConfig()
    spectral: SpectralConfig = Field(SpectralConfig(), json_schema_extra=IN_FINGERPRINT_IF_READ)

    @property
    def keys(self) -> ObjectiveKeys:
        """Which keys the objective reads, and where they stand in the TOML."""
        return OBJECTIVE_KEYS[self.objective]

    @property
    def worker_range(self) -> tuple[int, int | None]:
        """Least and greatest number of workers; None: as many as there is room for."""
        if isinstance(self.workers, int):
            return self.workers, self.workers
        numbers = _WORKER_RANGE.fullmatch(self.workers)
        return (int(numbers[1]), int(numbers[2])) if numbers else (1, None)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, tree: Any) -> Any:
        """Fill in the defaults of the objective."""
        if not isinstance(tree, dict):
            return tree
        keys = OBJECTIVE_KEYS.get(str(tree.get("objective", DEFAULT_OBJECTIVE)))
        for (name, value), defaults in _READ_WITH.items():
            if _is_read(tree.get(name), value):
                tree = {**tree, **{k: v for k, v in defaults.items() if tree.get(k) is None}}
        return {**keys.defaults, **tree} if keys else tree

    @model_serializer(mode="wrap")
    def _as_section(self, dump: Callable[[TrainConfig], dict[str, Any]]) -> dict[str, Any]:
        """The section of a TOML, without keys that the objective does not read."""
        return sectioned_train(dump(self))

    @model_validator(mode="after")
    def _objective(self) -> TrainConfig:
        if self.metric and self.metric not in self.keys.metrics:
            raise ValueError(
                f"metric: '{self.metric}' is not measured for objective '{self.objective}'; "
                f"allowed: {', '.join(self.keys.metrics)}"
            )
        if self.ials.block_size > self.dim:
            raise ValueError(f"ials.block_size: at most train.dim (it is {self.dim}), or 0 for all")
        if self.keys.reads("bias") and self.l2_bias is not None and not self.bias:
            raise ValueError(f"{self._key('l2_bias')}: read only with bias = true; leave it out")
        if self.keys.reads("negatives") and not self.negatives and not self.in_batch:
            instead = " or set in_batch = true" if self.keys.reads("in_batch") else ""
            raise ValueError(
                f"{self._key('negatives')}: objective '{self.objective}' needs negatives; "
                f"set it above 0{instead}"
            )
        return self

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
        key = self._key("in_batch_negatives")
        if self.in_batch_negatives and not self.in_batch:
            raise ValueError(f"{key}: needs {self.keys.path('in_batch')} = true")
        if self.in_batch_negatives > self.batch_size:
            raise ValueError(
                f"{key}: at most train.batch_size (it is {self.batch_size}), or 0 for all"
            )
        return self

    @model_validator(mode="after")
    def _loss(self) -> TrainConfig:
        for (name, value), defaults in _READ_WITH.items():
            for key in defaults:
                given = getattr(self, key) is not None
                if given and not _is_read(getattr(self, name), value):
                    said = f"{name} = '{value}'" if value else f"{name} above 0"
                    raise ValueError(f"{self._key(key)}: read only with {said}; leave it out")
        if self.loss != "softmax" and (self.similarity != "cosine" or self.bias):
            raise ValueError(
                f"{self._key('loss')}: '{self.loss}' needs similarity = 'cosine' and bias = false; "
                "it has no lower bound otherwise, so that vectors or biases would grow without end"
            )
        if self.loss == "psl" and self.temperature >= 1:
            raise ValueError(
                f"{self._key('temperature')}: below 1 with loss = 'psl', whose activation is "
                "raised to the power of 1 over it"
            )
        return self

    def _key(self, key: str) -> str:
        """Where `key` stands below [train]."""
        return self.keys.path(key).removeprefix("train.")
