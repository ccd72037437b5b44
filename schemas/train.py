"""Artifact `train`: the tables of the best epoch by partition, the model, the history, the log."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from embedmill.schemas.contract import ArtifactContract, Count, Counters
from embedmill.schemas.files import JsonFile, Number, PartFiles, Stored

__all__ = [
    "CONTRACT",
    "FILES",
    "HISTORY",
    "LOG",
    "MODEL",
    "STATE",
    "TRIALS",
    "Epoch",
    "Model",
    "Search",
    "Trial",
]

# By table. File p holds rows p, p + P, ... of P = `run.partitions` partitions: tensor "weight",
# float32 [S, dim], and where the model has biases "bias", float32 [S, 1]. A model of item pairs
# has "contexts" too, and the users that are derived from its items.
FILES = {table: PartFiles(table, suffix="safetensors") for table in ("users", "items", "contexts")}
# Rows as they are trained with their optimizer state, for a training that starts from this one;
# where `train.start` is set and the objective is trained by gradients. Tensors "users.weight",
# "items.weight" and "users.STATE" of the optimizer, of the rows of a partition; of a model of item
# pairs, "users" are the centers and "items" the contexts.
STATE = PartFiles("state", suffix="safetensors")
# A line of JSON for every so many steps and for every epoch.
LOG = "log.jsonl"


class Model(Stored):
    """What the tables are.

    `dim` counts coordinates without biases; a rating is `mean` + biases + inner product.
    `best_epoch` counts from 1, and `metric` chose it; 0 and empty where nothing was validated and
    the last epoch is kept. `refit` has the train losses of a refit on train and validation events,
    empty where there was none.
    """

    objective: str
    similarity: str
    dim: int
    bias: bool
    mean: Number
    users: int
    items: int
    partitions: int
    best_epoch: int
    metric: str
    refit: tuple[float, ...] = ()


class Epoch(Stored):
    """Figures of one epoch; validation metrics ("ndcg@10") are further keys."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number] = Field(init=False)

    epoch: int
    train_loss: Number
    learning_rate: Number

    @property
    def metrics(self) -> dict[str, Number]:
        """Validation metrics by name."""
        return dict(self.__pydantic_extra__)


class Trial(Stored):
    """A trial of objective `auto`.

    `settings` are by key of section train, where they differ from the objective's defaults.
    `users` is the share of the users whose events it had, `cost` what it was counted to cost (about
    seconds of a core). `metrics` are of the validation users among them; empty where it diverged.
    """

    objective: str
    dim: int
    settings: dict[str, Number | str]
    epochs: int
    users: Number
    cost: Number
    metrics: dict[str, Number]


class Search(Stored):
    """The trials in their order, and section train as it was chosen."""

    trials: tuple[Trial, ...]
    chosen: dict[str, Any]


MODEL = JsonFile("model.json", Model)
HISTORY = JsonFile("history.json", list[Epoch])
# Only where the objective was `auto`.
TRIALS = JsonFile("trials.json", Search)


def _status(c: Counters, n: Count) -> str:
    chosen = f"best {c['best_epoch']}" if c["best_epoch"] else "last kept"
    return f"{n(c['epochs'])} epochs, {n(c['steps'])} steps, {chosen}"


CONTRACT = ArtifactContract(status=_status)
