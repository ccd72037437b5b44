"""Keys of kinds of index: who reads them, and what is refused."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest

from embedmill.pipeline.config import Config, IndexConfig, parse, to_toml
from embedmill.pipeline.config.index_keys import INDEX_SECTIONS, KIND_KEYS
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.index import INDEXES
from embedmill.pipeline.index.incremental import carry_over
from tests.support.worlds import config_tree

TREE = config_tree("runs", "log.tsv")
# A value other than the default for each key.
VALUES: dict[str, int] = {
    "hnsw.m": 8, "hnsw.ef_construction": 99, "hnsw.ef_search": 77, "hnsw.refine": 7,
    "hnsw.refine_bits": 16, "ivf.lists": 50, "ivf.probes": 3, "ivf.segments": 5, "ivf.refine": 7,
    "ivf.refine_bits": 16, "ivfpq.lists": 50, "ivfpq.probes": 3, "ivfpq.segments": 5,
}  # fmt: skip
SIZE = (100_000, 32)  # items, coordinates
TUNED = {"ef_search", "probes", "refine"}  # tuning sets them, whatever a candidate says


def section(**keys: int) -> dict[str, Any]:
    """Keys "section.key" as the sections of [index]."""
    tree: dict[str, Any] = {}
    for path, value in keys.items():
        name, key = path.split(".")
        tree.setdefault(name, {})[key] = value
    return tree


def with_index(stored: bool = False, **index: Any) -> Config:
    return parse({**TREE, "index": index}, stored=stored)


def planned(kind: str, keys: dict[str, int]) -> Any:
    return INDEXES[kind].plan(*SIZE, IndexConfig.model_validate(section(**keys)))


def candidates(kind: str, keys: dict[str, int]) -> list[list[dict[str, int]]]:
    config = IndexConfig.model_validate(section(**keys))
    found = (INDEXES[kind].candidates(*SIZE, config) for kind in _kinds(kind))
    return [[{k: v for k, v in one.items() if k not in TUNED} for one in ones] for ones in found]


def _kinds(kind: str) -> list[str]:
    return list(INDEXES) if kind == "auto" else [kind]


def test_every_key_is_tried_below() -> None:
    models = IndexConfig()
    every = {f"{name}.{key}" for name in INDEX_SECTIONS
             for key in type(getattr(models, name)).model_fields}  # fmt: skip
    assert set(VALUES) == every
    assert set(KIND_KEYS) == {"auto", *INDEXES}


@pytest.mark.parametrize("kind", KIND_KEYS)
@pytest.mark.parametrize("key", VALUES)
def test_a_key_is_said_to_be_read_where_it_changes_the_plan(kind: str, key: str) -> None:
    """Known from the kinds themselves: what the config says of them is true."""
    keys, given = KIND_KEYS[kind], {key: VALUES[key]}
    if kind != "auto":
        assert (planned(kind, given) != planned(kind, {})) == (key in keys.built + keys.selected)
    assert (candidates(kind, given) != candidates(kind, {})) == (key in keys.built)


@pytest.mark.parametrize("kind", KIND_KEYS)
@pytest.mark.parametrize("key", VALUES)
def test_a_key_that_is_not_read_is_refused(kind: str, key: str) -> None:
    keys, given = KIND_KEYS[kind], section(**{key: VALUES[key]})
    for target in ({}, {"recall_at_10": 0.9}, {"max_bytes": "1GB"}, {"max_latency_ms": 2}):
        selected = () if target or kind == "auto" else keys.selected
        if key in (*keys.built, *selected):
            name, inner = key.split(".")
            found = getattr(getattr(with_index(kind=kind, **target, **given).index, name), inner)
            assert found == VALUES[key]
            continue
        with pytest.raises(ConfigError, match=rf"index\.{key.split('.')[0]}[.a-z_]*: not read"):
            with_index(kind=kind, **target, **given)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"kind": "flat", "hnsw": {"m": 8}},
         "index.hnsw: not read by kind 'flat', only by auto, hnsw, hnswsq8"),
        ({"kind": "ivfflat", "ivf": {"segments": 8, "lists": 9}},
         "index.ivf.segments: not read by kind 'ivfflat', only by auto, fastscan, opqivfpq"),
        ({"kind": "hnsw", "recall_at_10": 0.9, "hnsw": {"ef_search": 8}},
         "index.hnsw.ef_search: not read where a target is set (recall_at_10, max_bytes, "
         "max_latency_ms), which selects it"),
        ({"ivf": {"probes": 8}},
         "index.ivf.probes: not read by kind 'auto', which selects it; only by fastscan, "
         "ivfflat, ivfsq8, opqivfpq"),
        ({"kind": "flat", "ivf": {}, "ivfpq": {"probes": 1}},
         "index.ivf: not read by kind 'flat', only by auto, fastscan, ivfflat, ivfsq8, opqivfpq; "
         "index.ivfpq: not read by kind 'flat', only by auto, ivfpq"),
    ],
)  # fmt: skip
def test_the_reason_is_said(index: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as stop:
        with_index(**index)
    assert str(stop.value) == f"config: {said}"


def test_an_incremental_index_reads_the_graph_of_its_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many new items are a graph, whatever the kind of the base."""
    monkeypatch.setattr(carry_over, "_FLAT_DELTA", 100)
    hnsw = {"m": 8, "ef_construction": 99, "ef_search": 77}
    index = {"kind": "flat", "hnsw": hnsw}
    tree = {**TREE, "index": {**index, "carry_over": 0.5}, "vocab": {"previous": "runs/before"}}
    config = parse(tree).index
    new_MD = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    kind, delta = carry_over.build_delta(new_MD, config, seed=1)
    assert delta is not None
    assert (kind, delta.parameters) == ("hnsw", hnsw)
    assert config.hnsw.ef_search == 77
    with pytest.raises(ConfigError, match=r"index\.hnsw: not read by kind 'flat'"):
        with_index(**index)


@pytest.mark.parametrize("kind", KIND_KEYS)
def test_the_resolved_config_has_what_the_kind_reads_and_no_more(kind: str) -> None:
    keys, one = KIND_KEYS[kind], with_index(kind=kind)
    text = to_toml(one)
    assert parse(tomllib.loads(text)) == one
    index = tomllib.loads(text)["index"]
    found = {f"{name}.{key}" for name in INDEX_SECTIONS for key in index.get(name, {})}
    not_given = {"hnsw.m", "hnsw.ef_construction"}
    assert found == {*keys.built, *(() if kind == "auto" else keys.selected)} - not_given


@pytest.mark.parametrize("kind", KIND_KEYS)
def test_a_stored_config_of_an_older_version_opens(kind: str) -> None:
    """It has all sections, whatever the kind."""
    whole = {name: getattr(IndexConfig(), name).model_dump() for name in INDEX_SECTIONS}
    assert with_index(stored=True, kind=kind, **whole) == with_index(kind=kind)
