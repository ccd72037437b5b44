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
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.errors import ConfigError
from pipeline.toml import TIMES, emit, lay, read

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
    "IvfPqConfig",
    "PairsConfig",
    "ReportConfig",
    "RunConfig",
    "ShardsConfig",
    "SmoothingConfig",
    "TrainConfig",
    "VocabConfig",
    "load",
    "stage_fields",
    "to_toml",
]

# Says where or how fast something runs, never what comes out: left out of fingerprints.
_ELSEWHERE: dict[str, Any] = {"shapes_artifact": False}

# user:password@ of a URL, and parameters such as Spark Connect's ;token=
_SECRET = re.compile(r"://[^/@]*:[^/@]+@|[;?&](token|password|secret)=", re.IGNORECASE)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
Paths = Names


def _workers(value: Any) -> Any:
    """[2, 8] is "2-8", and "3" is 3; the rest is judged with the section."""
    if isinstance(value, list | tuple):
        return "-".join(str(one) for one in value)
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return str(value) if isinstance(value, bool | float) else value


Workers = Annotated[int | str, BeforeValidator(_workers)]
_WORKER_RANGE = re.compile(r"([1-9]\d{0,5})-([1-9]\d{0,5})")


class RunConfig(_Section):
    """The run: one folder, `<root>/<name>/`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=-]*$", max_length=128)
    root: str = Field(
        "runs", min_length=1, json_schema_extra=_ELSEWHERE, description="folder or fsspec URL"
    )
    seed: int = Field(1, ge=0, lt=2**31)
    partitions: int = Field(
        64, ge=1, le=65536, description="virtual partitions, fixed for the life of a run"
    )
    engine: str = Field(
        "sail",
        pattern=r"^(sail|spark|sc://.+)$",
        json_schema_extra=_ELSEWHERE,
        description="sail (embedded), spark (local Apache Spark), or a Spark Connect URL",
    )


class ItemsConfig(_Section):
    """Item metadata: titles and categories for the report and the command line."""

    paths: Paths
    format: Literal["tsv", "csv", "delimited", "jsonl", "parquet"] = "tsv"
    separator: str = Field("\t", min_length=1, description="for delimited")
    encoding: str = "utf-8"
    header: bool = True
    columns: tuple[str, ...] = ()
    item: str = Field("item_id", description="column of the id")
    title: str = Field("{title}", description="a template over columns: '{name} ({year})'")
    categories: str = Field("", description="column of the categories; empty for none")
    categories_separator: str = Field("|", min_length=1)


class EventsConfig(_Section):
    """Raw logs and how their columns map to who, what, when and how much."""

    paths: Paths = Field(description="files, folders, globs or URLs")
    format: Literal["tsv", "csv", "delimited", "jsonl", "parquet"] = "tsv"
    separator: str = Field(",", min_length=1, max_length=8, description="for delimited")
    quote: str = Field('"', max_length=1, description="for csv and delimited; empty for none")
    header: bool = True
    columns: tuple[str, ...] = Field((), description="names, where there is no header")
    encoding: str = "utf-8"
    user: str = "user_id"
    item: str = "item_id"
    time: str = Field("", description="column of the time; empty for none")
    time_unit: Literal["iso", "seconds", "milliseconds", "microseconds"] = "seconds"
    time_min: str = Field("1970-01-01T00:00:00Z", description="earlier events are rejected")
    time_max: str = Field("", description="later events are rejected; empty for one day from now")
    weight: str = Field("", description="column of the weight or rating; empty for 1")
    split: str = Field("", description="column of the split, for shards.split = 'given'")
    max_id_bytes: int = Field(1024, ge=1, description="longer ids are rejected")
    max_rejects: float = Field(0.01, ge=0, le=1, description="share of lines; more fail the run")
    merge_by: Literal["event", "pair", "none"] = Field(
        "event",
        description="events alike in user, item and time are one (event); in user and item (pair)",
    )
    merge_weight: Literal["max", "sum", "last", "count"] = "max"
    merge_time: Literal["first", "last"] = Field("last", description="for merge_by = 'pair'")
    items: ItemsConfig | None = None

    @model_validator(mode="after")
    def _columns(self) -> EventsConfig:
        if not self.paths:
            raise ValueError("paths: at least one is needed")
        if not self.header and not self.columns and self.format not in ("jsonl", "parquet"):
            raise ValueError("columns: needed where header = false")
        return self


class VocabConfig(_Section):
    """Ids to dense rows."""

    min_user_count: int = Field(1, ge=1, description="users with fewer events are dropped")
    min_item_count: int = Field(1, ge=1)


class PairsConfig(_Section):
    """Pairs of items from users' sessions, for item2vec; without this section there are none."""

    window: int = Field(
        5, ge=0, le=4096, description="items to each side of an item; 0: its whole session"
    )
    window_minutes: float = Field(
        0, ge=0, description="a pair is at most so far apart in time; 0: any time"
    )
    session_gap_minutes: float = Field(
        0, ge=0, description="a longer pause ends a session; 0: a user's history is one session"
    )
    max_session: int = Field(
        1000, ge=2, le=4096, description="longer sessions are cut into equal pieces, and counted"
    )
    subsample: float = Field(
        0, ge=0, le=1, description="an item of share f stays with chance sqrt(this / f); 0: all"
    )
    with_valid: bool = Field(
        False, description="also pairs of train and validation events, for train.refit"
    )


class ShardsConfig(_Section):
    """Train, validation and test, decided once."""

    split: Literal["last", "time", "random", "given"] = "last"
    valid: float = Field(
        1, ge=0, description="last: events per user; random, time, given: share of the events"
    )
    test: float = Field(1, ge=0)
    valid_from: str = Field("", description="time: ISO time; empty to use the shares")
    test_from: str = ""
    given_train: Paths = ("train",)
    given_valid: Paths = ("valid",)
    given_test: Paths = ("test",)
    pairs: PairsConfig | None = None

    @model_validator(mode="after")
    def _sizes(self) -> ShardsConfig:
        if self.split == "last":
            if self.valid != int(self.valid) or self.test != int(self.test):
                raise ValueError("valid, test: whole numbers of events for split = 'last'")
        elif self.split == "given":
            if self.valid >= 1:
                raise ValueError(
                    "valid: a share of the train events below 1, for split = 'given'; "
                    "it is used where the column names no validation"
                )
        elif self.valid + self.test >= 1 and not (self.valid_from and self.test_from):
            raise ValueError(
                f"valid, test: shares that leave some to train, together below 1, "
                f"for split = '{self.split}'"
            )
        return self


class CclConfig(_Section):
    """For train.objective = 'ccl', the cosine contrastive loss."""

    margin: float = Field(
        0.4, ge=-1, lt=1, description="a negative counts by how far its cosine is above it"
    )
    negative_weight: float = Field(
        50.0, gt=0, description="of the mean over the negatives; the positive has 1"
    )


class IalsConfig(_Section):
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


class Item2VecConfig(_Section):
    """For train.objective = 'item2vec' and 'item2vec-softmax', over the pairs of shards.pairs."""

    per_pair: float = Field(
        5.0, gt=0, description="item2vec: the step's negatives weigh as so many for each pair"
    )
    history: int = Field(
        0, ge=0, description="a user is the mean of the last so many of its items; 0: of all"
    )


class SmoothingConfig(_Section):
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


class TrainConfig(_Section):
    """Training: objective, optimizer, schedule.

    'ials' has no steps of events: it uses neither batch_size, similarity, negatives and their
    keys, optimizer, learning_rate, schedule, warmup_steps, l2 nor bias. 'ccl' uses neither
    similarity, temperature, logq nor bias, 'bpr' no logq, and its defaults are similarity =
    'dot' and temperature = 1 (as in its paper). 'item2vec' and
    'item2vec-softmax' have other defaults: similarity = 'dot', temperature = 1, weight_power = 1
    (a pair counts as often as it was met), and the former negatives_power = 0.75.
    """

    objective: str = Field("softmax", description="a name in pipeline.train.objectives.OBJECTIVES")
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
    optimizer: str = Field("adagrad", description="a name in pipeline.train.optim.OPTIMIZERS")
    learning_rate: float = Field(0.1, gt=0)
    schedule: str = Field("constant", description="a name in pipeline.train.optim.SCHEDULES")
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
        json_schema_extra=_ELSEWHERE,
        description="a number; auto: as many as the cluster has room for; 2-8: as many as there "
        "is room for while it trains, at least 2",
    )
    threads: int = Field(1, ge=1, json_schema_extra=_ELSEWHERE, description="torch, per worker")
    launcher: Literal["ray", "inline"] = Field(
        "ray", json_schema_extra=_ELSEWHERE, description="inline: in this process, one worker"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", json_schema_extra=_ELSEWHERE)
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="softmax: what the factors of its matrix products are rounded to; tables, "
        "sums and updates stay in float32",
    )
    tables: Literal["auto", "memory", "mapped"] = Field(
        "auto",
        json_schema_extra=_ELSEWHERE,
        description="in memory, or in mapped files of a local disk; auto: those that do not fit",
    )
    scratch: str = Field(
        "",
        json_schema_extra=_ELSEWHERE,
        description="folder of mapped tables; empty: the run's, or a temporary one if not local",
    )
    checkpoint_steps: int = Field(
        0, ge=0, json_schema_extra=_ELSEWHERE, description="0: at the end of each epoch"
    )
    checkpoint_copy_mib: int = Field(
        4096,
        ge=0,
        json_schema_extra=_ELSEWHERE,
        description="per worker: tables up to this size, and to half of the free memory, are "
        "copied for a checkpoint and written while training goes on; larger ones hold it up",
    )
    max_failures: int = Field(3, ge=0, json_schema_extra=_ELSEWHERE)
    track: Names = Field(
        (),
        json_schema_extra=_ELSEWHERE,
        description="names in pipeline.train.trackers.TRACKERS that show the log as it grows",
    )
    log_steps: int = Field(
        0,
        ge=0,
        json_schema_extra=_ELSEWHERE,
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


class ExportConfig(_Section):
    """Vectors with their ids."""

    npy: bool = Field(True, description="also write users.npy and items.npy")


class HnswConfig(_Section):
    """FAISS HNSW."""

    m: int = Field(32, ge=2, le=256)
    ef_construction: int = Field(200, ge=8)
    ef_search: int = Field(128, ge=1)


class IvfPqConfig(_Section):
    """FAISS IVF with product quantization."""

    lists: int = Field(0, ge=0, description="0: about 4 sqrt(n)")
    probes: int = Field(0, ge=0, description="0: a quarter of the lists")
    segments: int = Field(0, ge=0, description="bytes per vector; 0: one per two dimensions")


class IndexConfig(_Section):
    """The nearest-neighbour index over the items."""

    kind: str = Field("hnsw", description="a name in pipeline.index.INDEXES")
    queries: int = Field(1000, ge=1, description="held-out users' vectors to measure with")
    threads: int = Field(0, ge=0, json_schema_extra=_ELSEWHERE, description="0: all cores")
    hnsw: HnswConfig = HnswConfig()
    ivfpq: IvfPqConfig = IvfPqConfig()


class GatesConfig(_Section):
    """What a run must reach to be published. Absent gates are not asked."""

    over_popularity: dict[str, float] = Field(
        {}, description="metric to least ratio over popularity: {'recall@10' = 1.2}"
    )
    least: dict[str, float] = Field(
        {}, description="metric to its floor: {'index.recall@10' = 0.95}"
    )
    most: dict[str, float] = Field({}, description="metric to its ceiling: {rmse = 0.95}")


class EvaluateConfig(_Section):
    """Exact and through the index, on test."""

    ks: tuple[int, ...] = (10, 20, 100)
    batch_users: int = Field(1024, ge=1, json_schema_extra=_ELSEWHERE)
    slices: int = Field(3, ge=1, le=20, description="item-popularity slices of equal train events")
    gates: GatesConfig = GatesConfig()

    @field_validator("ks")
    @classmethod
    def _ks(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1 or len(set(ks)) != len(ks):
            raise ValueError("positive numbers, each once")
        return tuple(sorted(ks))


class ReportConfig(_Section):
    """The HTML page."""

    title: str = ""
    map_items: int = Field(2000, ge=1, description="most frequent items on the map")
    labels: int = Field(25, ge=0, description="items labelled on the map")
    neighbours_of: tuple[str, ...] = Field(
        (), description="titles or ids; empty: the most frequent items"
    )


class Config(_Section):
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
        return self

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
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value
