"""One TOML per run, one frozen tree.

Unknown keys are refused; errors carry the key's full path and what is allowed.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from embedmill.pipeline.config.data import (
    EventsConfig,
    ItemsConfig,
    PairsConfig,
    ShardsConfig,
    VocabConfig,
)
from embedmill.pipeline.config.results import (
    EvaluateConfig,
    ExportConfig,
    GatesConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    IvfPqConfig,
    ReportConfig,
)
from embedmill.pipeline.config.section import ELSEWHERE, Section
from embedmill.pipeline.config.signals import SignalsConfig
from embedmill.pipeline.config.toml import TIMES, emit, lay, read
from embedmill.pipeline.config.train import (
    CclConfig,
    IalsConfig,
    Item2VecConfig,
    SmoothingConfig,
    TrainConfig,
)
from embedmill.pipeline.errors import ConfigError

__all__ = [
    "CclConfig",
    "Config",
    "EvaluateConfig",
    "EventsConfig",
    "ExportConfig",
    "GatesConfig",
    "HnswConfig",
    "IalsConfig",
    "IndexConfig",
    "Item2VecConfig",
    "ItemsConfig",
    "IvfConfig",
    "IvfPqConfig",
    "PairsConfig",
    "ReportConfig",
    "RunConfig",
    "ShardsConfig",
    "SignalsConfig",
    "SmoothingConfig",
    "TrainConfig",
    "VocabConfig",
    "load",
    "stage_fields",
    "to_toml",
]

# user:password@ of a URL, and parameters such as Spark Connect's ;token=
_SECRET = re.compile(r"://[^/@]*:[^/@]+@|[;?&](token|password|secret)=", re.IGNORECASE)


class RunConfig(Section):
    """The run: one folder, `<root>/<name>/`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=-]*$", max_length=128)
    root: str = Field(
        "runs", min_length=1, json_schema_extra=ELSEWHERE, description="folder or fsspec URL"
    )
    seed: int = Field(1, ge=0, lt=2**31)
    partitions: int = Field(
        64, ge=1, le=65536, description="virtual partitions, fixed for the life of a run"
    )
    engine: str = Field(
        "sail",
        pattern=r"^(sail|spark|sc://.+)$",
        json_schema_extra=ELSEWHERE,
        description="sail (embedded), spark (local Apache Spark), or a Spark Connect URL",
    )


class Config(Section):
    """The whole run."""

    run: RunConfig
    events: EventsConfig
    vocab: VocabConfig = VocabConfig()
    shards: ShardsConfig = ShardsConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    index: IndexConfig = IndexConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _across(self) -> Config:
        if self.shards.split in ("last", "time") and not self.events.time:
            raise ValueError(f"events.time: needed for shards.split = '{self.shards.split}'")
        if self.shards.split == "given" and not self.events.split:
            raise ValueError("events.split: needed for shards.split = 'given'")
        if self.train.objective.startswith("item2vec"):
            self._pairs()
        if self.shards.pairs is not None and not self.events.time:
            raise ValueError(
                "events.time: needed for [shards.pairs], which orders a user's items by time"
            )
        if self.train.objective == "rating" and not self.events.weight:
            raise ValueError("events.weight: needed for train.objective = 'rating'")
        if self.index.carry_over and not self.vocab.previous:
            raise ValueError("index.carry_over: needs vocab.previous, whose index is kept")
        self._weights()
        if self.train.launcher == "inline" and self.train.workers not in (1, "auto"):
            raise ValueError("train.workers: 1 with train.launcher = 'inline'")
        if self.train.tables == "mapped" and self.train.device == "cuda":
            raise ValueError("train.tables: 'mapped' is for train.device = 'cpu'")
        if "://" in self.train.scratch:
            raise ValueError("train.scratch: a folder on a local disk, not a URL")
        if self.run.root.startswith("memory:") and self.train.launcher == "ray":
            raise ValueError(
                "run.root: memory:// lives in one process; "
                "use it with train.launcher = 'inline' and train.workers = 1"
            )
        here = self.index.launcher == "inline" or self.index.shards < 2
        if self.run.root.startswith("memory:") and not here:
            raise ValueError("index.launcher: memory:// lives in one process; use 'inline' with it")
        return self

    def _weights(self) -> None:
        """Weights that the log's rules make are to be of use, or left alone on purpose."""
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
                "train.weight_power: say 1 and an event counts as much as events.signals makes it "
                "weigh, or 0 and each counts once"
            )

    def _pairs(self) -> None:
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
        if self.train.in_batch:
            raise ValueError(f"train.in_batch: not for {objective}")

    @model_validator(mode="after")
    def _secrets(self) -> Config:
        items = self.events.items.paths if self.events.items else ()
        for key, urls in (
            ("run.root", (self.run.root,)),
            ("run.engine", (self.run.engine,)),
            ("events.paths", self.events.paths),
            ("events.items.paths", items),
            ("vocab.previous", (self.vocab.previous,)),
        ):
            if any(_SECRET.search(url) for url in urls):
                raise ValueError(
                    f"{key}: holds a password or token, and the config is stored and shown with "
                    "the run; give it in the environment (Spark Connect: "
                    "SPARK_CONNECT_AUTHENTICATE_TOKEN) or in fsspec's own configuration"
                )
        return self


def load(path: str | Path, sets: Sequence[str] = ()) -> Config:
    """The config at `path` with each `section.key=value` of `sets` laid over it.

    Raises:
        ConfigError: no such file, not TOML, an unknown key, a value out of bounds.
    """
    tree = read(Path(path))
    for one in sets:
        lay(tree, one)
    return parse(tree, where=str(path))


def parse(tree: Mapping[str, Any], where: str = "config") -> Config:
    """The config of a parsed TOML; `where` names it in errors."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error), where=where) from None


def stage_fields(config: Config, keys: Sequence[str]) -> dict[str, Any]:
    """Flat `section.key` → value below `keys`, without fields that shape no artifact."""
    flat = dict(_flatten(config, ""))
    return {
        path: value
        for path, value in sorted(flat.items())
        if any(path == key or path.startswith(f"{key}.") for key in keys)
    }


def to_toml(config: Config) -> str:
    """The resolved run as TOML that `load` reads back to an equal config."""
    return emit(config.model_dump(mode="python"))


def _explain(error: ValidationError) -> str:
    """Every error on one line: key's path, what is wrong, what is allowed."""
    parts = []
    for one in error.errors(include_url=False):
        path = ".".join(str(p) for p in one["loc"])
        if one["type"] == "extra_forbidden":
            parts.append(f"{path}: unknown key; {_allowed(one['loc'])}")
        elif one["type"] == "missing":
            parts.append(f"{path}: missing")
        elif one["type"] == "value_error":
            text = one["msg"].removeprefix("Value error, ")
            parts.append(f"{path}.{text}" if path else text)
        elif one["type"] == "string_type" and isinstance(one["input"], (int, float, *TIMES)):
            parts.append(f'{path}: a string is needed; write it in quotes: "{one["input"]}"')
        else:
            message = one["msg"][0].lower() + one["msg"][1:]
            parts.append(f"{path}: {message}, got {one['input']!r}")
    return "; ".join(parts)


def _allowed(path: tuple[int | str, ...]) -> str:
    model: type[BaseModel] | None = Config
    for key in path[:-1]:
        field = model.model_fields.get(str(key)) if model else None
        model = _model_of(field.annotation) if field else None
    names = sorted(model.model_fields) if model else []
    near = difflib.get_close_matches(str(path[-1]), names, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}allowed: {', '.join(names)}"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((m for a in typing.get_args(annotation) if (m := _model_of(a))), None)
    return None


def _flatten(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in type(model).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("shapes_artifact") is False:
            continue
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _as_json(value)


def _as_json(value: Any) -> Any:
    """A value as it comes back from a manifest."""
    if isinstance(value, Mapping):
        return {key: _as_json(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
