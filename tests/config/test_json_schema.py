"""The JSON Schema: current, complete, and of one mind with the loader."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from embedmill.pipeline.config import json_schema, load, parse, to_toml
from embedmill.pipeline.config.objectives import OBJECTIVE_KEYS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "schemas" / "config.schema.json"
TOMLS = sorted(ROOT.glob("examples/*.toml"))
SCHEMA = json_schema()
VALIDATOR = Draft7Validator(SCHEMA)
MINIMAL = {"run": {"name": "a"}, "events": {"paths": "a.tsv", "time": "t", "weight": "w"}}


def test_the_file_is_current() -> None:
    again = "embedmill config --schema > schemas/config.schema.json"
    assert FILE.read_text(encoding="utf-8") == json.dumps(SCHEMA, indent=1) + "\n", again


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", TOMLS, ids=lambda path: path.name)
def test_every_toml_of_the_repo_loads_and_validates(path: Path) -> None:
    one = load(path, note=pytest.fail)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#:schema ../schemas/config.schema.json\n")
    VALIDATOR.validate(tomllib.loads(text))
    VALIDATOR.validate(tomllib.loads(to_toml(one)))
    assert f"{one.run.root}/{one.run.name}" == f"runs/{path.stem}"


@pytest.mark.parametrize("objective", OBJECTIVE_KEYS)
def test_a_resolved_config_of_each_objective_validates(objective: str) -> None:
    tree = {**MINIMAL, "train": {"objective": objective}, "shards": {"pairs": {}}}
    VALIDATOR.validate(tree)
    VALIDATOR.validate(tomllib.loads(to_toml(parse(tree))))


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"temprature": 1.0}},
        {"train": {"softmax": {"temprature": 1.0}}},
        {"train": {"objective": "rating", "rating": {"temperature": 1.0}}},
        {"train": {"objective": "rating", "softmax": {}}},
        {"train": {"objective": "ials", "learning_rate": 1.0}},
        {"train": {"objective": "sofmax"}},
        {"train": {"metric": "rmse"}},
        {"train": {"dim": 0}},
        {"train": {"temperature": 0.2, "softmax": {"temperature": 0.1}}},  # in both places
        {"train": {"objective": "rating", "temperature": 0.2}},
        {"train": {"objective": "ials", "ials": {"block": 4, "block_size": 4}}},
        {"index": {"kind": "flat", "ivf": {}}},
        {"index": {"kind": "hnsw", "hnsw": {"refine": 2}}},
        {"index": {"kind": "ivfpq", "max_bytes": 10**6, "ivfpq": {"probes": 2}}},
        {"index": {"ivf": {"probes": 2}}},  # auto
        {"index": {"kind": "annoy"}},
        {"index": {"max_bytes": []}},
        {"trian": {}},
        {"run": {}},
    ],
)
def test_it_refuses_what_the_loader_refuses(sections: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid({**MINIMAL, **sections})


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"workers": [2, 8]}},
        {"train": {"workers": "auto", "track": "mlflow"}},
        {"index": {"max_bytes": "60MB", "shard_bytes": 1000}},
        {"index": {"kind": "hnswsq8", "hnsw": {"m": 8, "ef_search": 40, "refine": 3}}},
        {"index": {"hnsw": {"m": 8}, "ivf": {"lists": 9}}},
        {"events": {"paths": ["a", "b"], "defaults": {"w": 1}, "aliases": {"a": "b"}}},
    ],
)
def test_it_takes_every_form_that_the_loader_takes(sections: dict[str, Any]) -> None:
    tree = {**MINIMAL, **{k: {**MINIMAL.get(k, {}), **v} for k, v in sections.items()}}
    VALIDATOR.validate(tree)
    parse({**tree, "shards": {"split": "random", "valid": 0.1, "test": 0.1}})


@pytest.mark.parametrize(
    ("sections", "now"),
    [
        ({"train": {"temperature": 0.2, "smoothing": {"weight": 1}}}, "train.softmax.temperature"),
        ({"train": {"objective": "ials", "cg_steps": 2}}, "train.ials.cg_steps"),
        ({"train": {"objective": "ials", "ials": {"block": 4}}}, "train.ials.block_size"),
        ({"train": {"objective": "item2vec", "item2vec": {"per_pair": 4}},
          "shards": {"pairs": {}}}, "train.item2vec.negatives_per_pair"),
        ({"events": {"signals": {"max_user_day": 9}}}, "events.signals.max_user_events_per_day"),
    ],
)  # fmt: skip
def test_old_names_and_places_are_deprecated(sections: dict[str, Any], now: str) -> None:
    tree = {**MINIMAL, **{k: {**MINIMAL.get(k, {}), **v} for k, v in sections.items()}}
    VALIDATOR.validate(tree)
    notes: list[str] = []
    parse(tree, note=notes.append)
    old, marked = notes[0].split(" is now ")[0], notes[0].split(" is now ")[1]
    assert marked == now or len(notes) > 1
    found = [schema for path, schema in keys(SCHEMA) if path == old]
    assert [one["deprecated"] for one in found if now in one["description"]] == [True]


def keys(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key of the config with its schema, each objective's section train by itself."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = {**SCHEMA["$defs"][name], **{k: v for k, v in schema.items() if k != "$ref"}}
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from keys(one, f"{path}.{name}".removeprefix("."))
    for one in schema.get("oneOf", ()):
        yield from keys(one, path)


def test_every_key_has_a_description_and_a_default_or_is_needed() -> None:
    every = list(keys(SCHEMA))
    assert len({path for path, _ in every}) > 200
    assert not [path for path, schema in every if not schema.get("description")]
    without = {
        path
        for path, schema in every
        if not schema.get("deprecated")
        and not {"default", "properties", "oneOf", "const"} & schema.keys()
    }
    assert without == {
        "run.name", "events.paths", "events.items.paths",  # needed
        "events.signals.min_weight", "events.signals.min_merged_weight",  # none unless given
        "index.recall_at_10", "index.max_bytes", "index.max_latency_ms",
        "index.hnsw.m", "index.hnsw.ef_construction",
        "train.softmax.l2_bias", "train.bpr.l2_bias",
        "train.softmax.temperature_ratio", "train.softmax.activation",  # only with bsl, psl
        "train.softmax.top_k_temperature", "train.softmax.top_k_epochs",  # only with top_k
        "export.align",  # as train.start unless given
    }  # fmt: skip


def test_choices_are_enumerated() -> None:
    every = dict(keys(SCHEMA))
    assert "hnswsq8" in every["index.kind"]["enum"]
    assert every["train.softmax.similarity"]["enum"] == ["cosine", "dot"]
    assert every["train.bpr.similarity"]["default"] == "dot"
    assert every["train.optimizer"]["enum"] == ["adagrad", "adam"]
