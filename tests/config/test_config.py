from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest

from embedmill.pipeline import config
from embedmill.pipeline.errors import ConfigError
from tests.support.worlds import config_tree, laid

TREE = config_tree("runs", "log.tsv")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_and_toml_round_trip(tmp_path: Path) -> None:
    one = config.parse(laid(TREE, events={"quote": "", "separator": "\t|\u00e9\x01"}))
    text = config.to_toml(one)
    assert config.parse(tomllib.loads(text)) == one
    assert config.load(write(tmp_path / "again.toml", text)) == one


@pytest.mark.parametrize(
    ("given", "kept", "asked"),
    [
        (3, 3, (3, 3)),
        ("3", 3, (3, 3)),
        ("auto", "auto", (1, None)),
        ("2-8", "2-8", (2, 8)),
        ([2, 8], "2-8", (2, 8)),
    ],
)
def test_workers_are_a_number_auto_or_a_range(
    given: object, kept: object, asked: tuple[int, int | None]
) -> None:
    one = config.parse(laid(TREE, train={"launcher": "ray", "workers": given}))
    assert (one.train.workers, one.train.worker_range) == (kept, asked)
    assert config.parse(tomllib.loads(config.to_toml(one))) == one


def test_rules_of_signals_round_trip() -> None:
    rules = {"type": "e", "types": {"view": 1, "a b": 0.5}, "min_weight": 0, "half_life_days": 9}
    one = config.parse(
        laid(TREE, events={"filter": "a = 'x' and b > 1", "signals": rules},
             train={"weight_power": 0})
    )  # fmt: skip
    assert config.parse(tomllib.loads(config.to_toml(one))) == one
    fields = config.stage_fields(one, ("events",))
    assert fields["events.signals.types"] == {"view": 1, "a b": 0.5}
    assert fields["events.filter"] == "a = 'x' and b > 1"


@pytest.mark.parametrize(
    ("events", "shards", "split", "valid", "test"),
    [
        ({"time": "t"}, {}, "last", 1, 1),
        ({"time": "t"}, {"split": "time"}, "time", 0.1, 0.1),
        ({"time": "t"}, {"split": "random"}, "random", 0.1, 0.1),
        ({"time": "t"}, {"split": "random", "valid": 0.2}, "random", 0.2, 0.1),
        ({"split": "part"}, {"split": "given"}, "given", 0.1, 1),
        ({}, {}, "random", 0.1, 0.1),
        ({}, {"test": 0.2}, "random", 0.1, 0.2),
        ({"split": "part"}, {}, "given", 0.1, 1),
        # Existing configs of this form keep their fingerprints.
        ({"time": "t"}, {"split": "time", "valid_from": "2026-01-01", "test_from": "2026-02-01"},
         "time", 1, 1),
    ],
)  # fmt: skip
def test_every_split_has_defaults_that_work(
    events: dict[str, str], shards: dict[str, object], split: str, valid: float, test: float
) -> None:
    found = config.parse(
        {"run": {"name": "a"}, "events": {"paths": "a", **events}, "shards": shards}
    )
    assert (found.shards.split, found.shards.valid, found.shards.test) == (split, valid, test)


def test_is_frozen() -> None:
    one = config.parse(TREE)
    with pytest.raises(Exception, match="frozen"):
        one.train.epochs = 3


def test_set_lays_values_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", config.to_toml(config.parse(TREE)))
    one = config.load(
        path, ["train.epochs=9", "run.name=other", "evaluate.ks=[1,2]", "train.softmax.logq=false",
               "index.hnsw.m=8"],
    )  # fmt: skip
    assert (one.train.epochs, one.run.name, one.evaluate.ks) == (9, "other", (1, 2))
    assert (one.train.logq, one.index.hnsw.m) == (False, 8)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"train": {"epoch": 1}}, r"train\.epoch: unknown key; did you mean 'epochs'\? allowed: "),
        ({"index": {"hnsw": {"mm": 1}}}, r"index\.hnsw\.mm: unknown key; .*allowed: ef_constr"),
        ({"index": {"recall_at_10": 1.5}}, r"index\.recall_at_10: .*than or equal to 1, got 1"),
        ({"index": {"recall_at_10": 0}}, r"index\.recall_at_10: .*greater than 0, got 0"),
        ({"index": {"recall_at_10": 1.0, "kind": "hnsw"}},
         r"index\.recall_at_10: 1\.0 is exact search, which kind = .hnsw. is not; allowed: "),
        ({"index": {"max_bytes": "much"}}, r"index\.max_bytes: a number of bytes or .*got 'much'"),
        ({"index": {"max_bytes": 0}}, r"index\.max_bytes: .* above 0, got 0"),
        ({"index": {"max_latency_ms": 0}}, r"index\.max_latency_ms: .*greater than 0, got 0"),
        ({"index": {"kind": "fastscan", "ivf": {"refine_bits": 4}}},
         r"index\.ivf\.refine_bits: input should be 0, 8"),
        ({"index": {"kind": "hsnw"}}, r"index\.kind: 'hsnw' is not known; did you mean 'hnsw'\?"),
        ({"trian": {}}, r"trian: unknown key; did you mean 'train'"),
        ({"train": {"dim": 0}}, r"train\.dim: .*greater than or equal to 1, got 0"),
        ({"train": {"dim": "many"}}, r"train\.dim: .*valid integer.*got 'many'"),
        ({"events": {"format": "xml"}}, r"events\.format: 'xml' is not known; allowed: auto, tsv"),
        ({"events": {"paths": []}}, r"events\.paths: at least one"),
        ({"events": {"time": ""}, "shards": {"split": "last"}},
         r"events\.time: needed for shards\.split = 'last'"),
        ({"events": {"weight": ""}, "train": {"objective": "rating"}}, r"events\.weight: needed"),
        ({"events": {"encoding": "nonsense"}}, r"events\.encoding: unknown encoding 'nonsense'"),
        ({"events": {"encoding": "rot13"}}, r"events\.encoding: 'rot13' is no encoding of text"),
        ({"events": {"encoding": "hex"}}, r"events\.encoding: 'hex' is no encoding of text"),
        ({"events": {"encoding": "idna"}}, r"events\.encoding: 'idna' is no encoding of text"),
        ({"events": {"items": {"paths": "x", "encoding": "base64"}}},
         r"events\.items\.encoding: 'base64' is no encoding of text"),
        ({"events": {"escape": ","}}, r"events\.escape: a character that is neither separator"),
        ({"events": {"escape": '"'}}, r"events\.escape: doubled quotes are read without it"),
        ({"events": {"filter": "price >"}}, r"events\.filter: does not parse: .* after 'price >'"),
        ({"events": {"filter": "now() > a"}}, r"events\.filter: the function 'now' is not allowed"),
        ({"events": {"signals": {"type": "event"}}}, r"events\.signals\.types: needed with type"),
        ({"events": {"signals": {"types": {"buy": 5}}}}, r"events\.signals\.type: needed with ty"),
        ({"events": {"signals": {"type": "e", "types": {"buy": 0}}}}, r"types: all of them weigh"),
        ({"events": {"signals": {"type": "e", "types": {"a": math.inf}}}}, r"types: .a. weighs i"),
        ({"events": {"signals": {"min_weight": math.nan}}}, r"signals\.min_weight: a finite numb"),
        ({"events": {"signals": {"half_life_days": 1, "decay_until": "soon"}}}, r"signals\.decay_"),
        ({"events": {"signals": {"decay_until": "2026-01-01"}}}, r"half_life_days: needed with"),
        ({"events": {"signals": {"max_user_events_per_day": -1}}}, r"max_user_events_per_.*got -1"),
        ({"events": {"time": "", "signals": {"max_user_events_per_day": 9}},
         "shards": {"split": "random", "valid": 0.1, "test": 0.1}},
         r"events\.time: needed for events\.signals\.max_user_events_per_day"),
        ({"events": {"merge_weight": "count", "signals": {"type": "e", "types": {"a": 1, "b": 2}}}},
         r"events\.merge_weight: 'count' counts rows, whatever"),
        ({"events": {"weight": "", "signals": {"min_weight": 4}}}, r"events\.weight: needed for e"),
        ({"events": {"signals": {"half_life_days": 9}}}, r"train\.weight_power: set it to 1 to"),
        ({"events": {"signals": {"half_life_days": 9}}, "train": {"objective": "rating"}},
         r"events\.signals: its types and half_life_days would change the ratings"),
        ({"shards": {"split": "given", "valid": 0, "test": 0}}, r"events\.split: needed"),
        ({"shards": {"valid": 0.5}}, r"shards\.valid, test: whole numbers"),
        ({"shards": {"split": "random", "valid": 0.6, "test": 0.6}}, r"shards\.valid, test: sha"),
        ({"run": {"name": "../up"}}, r"run\.name: .*match pattern"),
        ({"run": {"engine": "flink"}}, r"run\.engine: .*match pattern"),
        ({"run": {"root": "memory://a"}, "train": {"launcher": "ray"}}, r"run\.root: memory"),
        ({"train": {"workers": 2}}, r"train\.workers: must be 1 with train\.l"),
        ({"train": {"workers": 0}}, r"train\.workers: a number from 1, 'auto', .*got 0"),
        ({"train": {"workers": "8-2"}}, r"train\.workers: .*a range such as '2-8', got '8-2'"),
        ({"train": {"workers": [1, 2, 3]}}, r"train\.workers: .*got '1-2-3'"),
        ({"train": {"workers": True}}, r"train\.workers: .*got 'True'"),
        ({"train": {"workers": 1.5}}, r"train\.workers: .*got '1\.5'"),
        ({"evaluate": {"ks": [10, 10]}}, r"evaluate\.ks\.?:? ?positive numbers, each once"),
    ],
)  # fmt: skip
def test_errors_name_the_key_and_what_is_allowed(sections: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.parse(laid(TREE, **sections))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("run.root", {"run": {"root": "sftp://me:hunter2@host/runs"}}),
        ("run.engine", {"run": {"engine": "sc://host:15002/;use_ssl=true;token=hunter2"}}),
        ("events.paths", {"events": {"paths": ["a.tsv", "ftp://me:hunter2@host/b.tsv"]}}),
        ("events.items.paths", {"events": {"items": {"paths": "https://me:hunter2@host/i.tsv"}}}),
        ("vocab.previous", {"vocab": {"previous": "sftp://me:hunter2@host/runs/monday"}}),
    ],
)
def test_secrets_have_no_place_in_a_config(key: str, sections: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{key}: holds a password or token") as stop:
        config.parse(laid(TREE, **sections))  # type: ignore[arg-type]
    assert "hunter2" not in str(stop.value)


@pytest.mark.parametrize("path", ["s3://bucket/a@b:c/*.tsv", "a:b@c.tsv", "sftp://me@host:22/x"])
def test_urls_without_secrets_pass(path: str) -> None:
    assert config.parse(laid(TREE, events={"paths": path})).events.paths == (path,)


def test_defaults_are_what_they_are_when_read_again() -> None:
    """To the type: fingerprints are of text, in which 0 is not 0.0."""
    one = config.parse(TREE)
    again = config.parse(one.model_dump())
    sections = tuple(type(one).model_fields)
    fields = [config.stage_fields(c, sections) for c in (one, again)]
    assert repr(fields[0]) == repr(fields[1])


def test_all_errors_are_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"train\.dim.*train\.epochs"):
        config.parse(laid(TREE, train={"dim": 0, "epochs": 0}))


def test_a_byte_order_mark_before_the_toml(tmp_path: Path) -> None:
    path = write(tmp_path / "run.toml", config.to_toml(config.parse(TREE)))
    marked = write(tmp_path / "marked.toml", "\ufeff" + path.read_text())
    assert config.load(marked) == config.load(path)


def test_a_date_is_a_string(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", config.to_toml(config.parse(TREE)))
    assert config.load(path, ["run.name=2026-11-22"]).run.name == "2026-11-22"
    with pytest.raises(ConfigError, match=r'run\.name: a string is needed; .* in quotes: "2026"'):
        config.load(path, ["run.name=2026"])


@pytest.mark.parametrize("bad", ["train.epochs", "=3", "epochs=3", "train..epochs=3"])
def test_a_set_that_is_none(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path / "a.toml", config.to_toml(config.parse(TREE)))
    with pytest.raises(ConfigError, match=r"--set.*is not section\.key=value"):
        config.load(path, [bad])


def test_a_set_below_a_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", config.to_toml(config.parse(TREE)))
    with pytest.raises(ConfigError, match=r"'name' in 'run\.name\.x' is not a section"):
        config.load(path, ["run.name.x=1"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file"):
        config.load(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"bad\.toml: not TOML: Invalid value"):
        config.load(write(tmp_path / "bad.toml", "run = ["))
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)


def test_fields_that_shape_an_artifact() -> None:
    one = config.parse(TREE)
    fields = config.stage_fields(one, ("run.seed", "train"))
    assert fields["run.seed"] == 1
    assert fields["train.epochs"] == 3
    for elsewhere in ("train.workers", "train.launcher", "train.checkpoint_steps", "run.root"):
        assert elsewhere not in fields
    assert "run.partitions" not in fields
