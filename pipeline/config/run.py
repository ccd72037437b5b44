"""The whole config: section run, all the other sections, and what must hold between them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from embedmill.pipeline.config.data import EventsConfig, ShardsConfig, VocabConfig
from embedmill.pipeline.config.observe import ObserveConfig
from embedmill.pipeline.config.results import (
    EvaluateConfig,
    ExportConfig,
    IndexConfig,
    ReportConfig,
)
from embedmill.pipeline.config.section import NOT_IN_FINGERPRINT, Names, Section
from embedmill.pipeline.config.train import TrainConfig
from embedmill.pipeline.config.variables import as_text

__all__ = ["Config", "RunConfig"]

# user:password@ of a URL, and parameters such as Spark Connect's ;token=
_SECRET = re.compile(r"://[^/@]*:[^/@]+@|[;?&](token|password|secret)=", re.IGNORECASE)


_FOLD_IN = 0.8  # Liang et al. 2018, arXiv 1802.05814, section 4.2


class RunConfig(Section):
    """The run: its folder is <root>/<name>."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._=-]*$",
        max_length=128,
        description="name of the run, and of its folder below root",
    )
    root: str = Field(
        "runs",
        min_length=1,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="folder or fsspec URL that holds runs",
    )
    seed: int = Field(1, ge=0, lt=2**31, description="seed of everything that is random")
    partitions: int = Field(
        64,
        ge=1,
        le=65536,
        description="partitions of users and items, for the life of the run; workers share them",
    )
    engine: str = Field(
        "sail",
        pattern=r"^(sail|spark|sc://.+)$",
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="sail (embedded), spark (local Apache Spark), or a Spark Connect URL",
    )
    store_deadline: float = Field(
        60.0,
        ge=1,
        le=86_400,
        allow_inf_nan=False,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="seconds that one request to an object store may take, with all its retries",
    )
    on_publish: Names = Field(
        (),
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="commands, or http(s) URLs of webhooks, that get the result as JSON (on stdin, "
        "or posted) when the run was published; $NAME is a variable of the environment",
    )
    on_failure: Names = Field(
        (),
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="the same when it failed; not when it was stopped",
    )
    sign: str = Field(
        "",
        exclude_if=lambda value: not value,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="file with a private key (Ed25519, PEM) that signs the finished run, for "
        "`embedmill verify --key`; empty for none",
    )


_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_Text = Annotated[str, BeforeValidator(as_text, json_schema_input_type=str | int)]


class Config(Section):
    """The config of a run."""

    run: RunConfig
    events: EventsConfig
    vocab: VocabConfig = VocabConfig()
    shards: ShardsConfig = ShardsConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    index: IndexConfig = IndexConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    observe: ObserveConfig = ObserveConfig()
    vars: dict[_Variable, _Text] = Field(
        {},
        exclude_if=lambda value: not value,
        json_schema_extra=NOT_IN_FINGERPRINT,
        description="variables with their defaults: {ds} in a string of the config is replaced by "
        "--var ds=..., else by the environment (EMBEDMILL_VAR_DS), else by the value here",
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, tree: Any) -> Any:
        """The split of a log without times, where the config names none."""
        events, shards = (tree.get(key, {}) for key in ("events", "shards"))
        named = not isinstance(shards, dict) or shards.keys() & {"split", "valid_from", "test_from"}
        if named or not isinstance(events, dict) or events.get("time"):
            return tree
        split = "given" if events.get("split") else "random"
        return {**tree, "shards": {**shards, "split": split}}

    @model_validator(mode="before")
    @classmethod
    def _ratings(cls, tree: Any) -> Any:
        """Ratings may be zero or negative: they are kept unless the config says otherwise."""
        train, events = (tree.get(key, {}) for key in ("train", "events"))
        if not (isinstance(train, dict) and isinstance(events, dict)):
            return tree
        signals = events.get("signals", {})
        named = not isinstance(signals, dict) or "nonpositive" in signals
        if named or train.get("objective") != "rating":
            return tree
        return {**tree, "events": {**events, "signals": {**signals, "nonpositive": "keep"}}}

    @model_validator(mode="before")
    @classmethod
    def _fold_in(cls, tree: Any) -> Any:
        """The share that makes the vectors of users who are withheld, where none is named."""
        shards, evaluate = (tree.get(key, {}) for key in ("shards", "evaluate"))
        if not isinstance(shards, dict) or not isinstance(evaluate, dict):
            return tree
        if shards.get("split") != "users" or "fold_in" in evaluate:
            return tree
        return {**tree, "evaluate": {**evaluate, "fold_in": _FOLD_IN}}

    @model_validator(mode="after")
    def _columns(self) -> Config:
        """Columns of the log that other sections need."""
        if self.shards.split in ("last", "time") and not self.events.time:
            raise ValueError(f"events.time: needed for shards.split = '{self.shards.split}'")
        if self.shards.split == "users" and not self.evaluate.fold_in:
            raise ValueError(
                "evaluate.fold_in: needed for shards.split = 'users', whose test users have no "
                "vectors of their own; such as 0.8"
            )
        if self.shards.split == "given" and not self.events.split:
            raise ValueError("events.split: needed for shards.split = 'given'")
        if self.train.objective.startswith("item2vec"):
            self._item2vec()
        if self.shards.pairs is not None and not self.events.time:
            raise ValueError(
                "events.time: needed for [shards.pairs], which orders a user's items by time"
            )
        if self.train.objective == "rating" and not self.events.weight:
            raise ValueError("events.weight: needed for train.objective = 'rating'")
        if self.index.carry_over and not self.vocab.previous:
            raise ValueError(
                "index.carry_over: needs vocab.previous, the run whose index is carried over"
            )
        self._event_weights()
        return self

    @model_validator(mode="after")
    def _processes(self) -> Config:
        """Settings of workers and processes that go together."""
        if self.train.launcher == "inline" and self.train.workers not in (1, "auto"):
            raise ValueError("train.workers: must be 1 with train.launcher = 'inline'")
        if self.train.tables == "mapped" and self.train.device == "cuda":
            raise ValueError("train.tables: 'mapped' needs train.device = 'cpu'")
        if "://" in self.train.scratch:
            raise ValueError("train.scratch: must be a folder on a local disk, not a URL")
        if self.run.root.startswith("memory:") and self.train.launcher != "inline":
            raise ValueError(
                "run.root: memory:// lives in one process; "
                "use it with train.launcher = 'inline' and train.workers = 1"
            )
        launchers = {
            "export": self.export.launcher,
            "index": "inline"
            if self.index.launcher == "processes" and self.index.shards < 2
            else self.index.launcher,
            "evaluate": self.evaluate.launcher,
        }
        if self.run.root.startswith("memory:"):
            for stage, launcher in launchers.items():
                if launcher not in ("inline", "auto"):
                    raise ValueError(
                        f"{stage}.launcher: memory:// lives in one process; use 'inline' with it"
                    )
        return self

    def _event_weights(self) -> None:
        """Weights that events.signals makes must be read, or left unread on purpose."""
        train = self.train
        if not self.events.signals.weighs:
            return
        if train.objective == "rating":
            raise ValueError(
                "events.signals: its types and half_life_days would change the ratings that "
                "train.objective = 'rating' learns"
            )
        if not train.weight_power and "weight_power" not in train.model_fields_set:
            raise ValueError(
                "train.weight_power: set it to 1 to count events by the weights that "
                "events.signals gives them, or to 0 to count each once"
            )

    def _item2vec(self) -> None:
        """What item2vec needs of other sections."""
        objective = f"train.objective = '{self.train.objective}'"
        if not self.events.time:
            raise ValueError(
                f"events.time: needed for {objective}, which pairs the items of a session in time"
            )
        if self.shards.pairs is None:
            raise ValueError(
                f"shards.pairs: needed for {objective}; an empty section [shards.pairs] will do"
            )
        if self.train.refit and not self.shards.pairs.with_valid:
            raise ValueError(f"shards.pairs.with_valid: true is needed for a refit of {objective}")

    @model_validator(mode="after")
    def _secrets(self) -> Config:
        items = self.events.items.paths if self.events.items else ()
        for key, urls in (
            ("run.root", (self.run.root,)),
            ("run.engine", (self.run.engine,)),
            ("events.paths", self.events.paths),
            ("events.items.paths", items),
            ("vocab.previous", (self.vocab.previous,)),
            ("run.on_publish", self.run.on_publish),
            ("run.on_failure", self.run.on_failure),
            ("observe.lineage", (self.observe.lineage,)),
            ("observe.metrics", (self.observe.metrics,)),
            *((f"vars.{name}", (value,)) for name, value in self.vars.items()),
        ):
            if any(_SECRET.search(url) for url in urls):
                raise ValueError(
                    f"{key}: holds a password or token, and the config is stored and shown with "
                    "the run; give it in the environment (Spark Connect: "
                    "SPARK_CONNECT_AUTHENTICATE_TOKEN) or in fsspec's own configuration"
                )
        return self
