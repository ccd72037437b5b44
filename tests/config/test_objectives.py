"""Keys of objectives: where they stand, who reads them, and older configs."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from embedmill.pipeline.config import Config, IndexConfig, TrainConfig, load, parse, stage_fields
from embedmill.pipeline.config import to_toml as toml_of
from embedmill.pipeline.config.objectives import OBJECTIVE_KEYS, readers_of
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.index import INDEXES
from embedmill.pipeline.train.objectives import OBJECTIVES
from embedmill.pipeline.train.tables.optimizers import OPTIMIZERS, SCHEDULES
from embedmill.schemas.manifest import digest

BASE = {
    "run": {"name": "a"},
    "events": {"paths": "a.tsv", "time": "time", "weight": "rating"},
    "shards": {"pairs": {"with_valid": True}},
}

# A value other than the default for each key that some objective does not read.
VALUES: dict[str, Any] = {
    "batch_size": 100, "optimizer": "adam", "learning_rate": 0.5, "schedule": "cosine",
    "warmup_steps": 7, "l2": 0.5, "l2_power": 0.25, "weight_power": 2.0,
    "loss": "bsl", "temperature_ratio": 1.3, "activation": "tanh", "top_k": 20,
    "top_k_temperature": 0.5, "top_k_epochs": 3, "implicit_rate": 0.01,
    "similarity": "cosine", "temperature": 0.3, "negatives": 33, "negatives_power": 0.6,
    "in_batch": True, "in_batch_negatives": 3, "logq": False, "bias": True, "l2_bias": 0.1,
    "init": "normal", "smoothing": {"weight": 0.5, "item_power": 0.1}, "precision": "bfloat16",
    "margin": 0.2, "negative_weight": 3.0, "negatives_per_pair": 2.0, "history": 4,
    "regularization": 0.1, "regularization_power": 0.5, "unobserved_weight": 0.2, "block_size": 8,
    "cg_steps": 2, "user_power": 0.3, "item_power": 0.2, "popularity_power": 0.1, "ridge": 0.2,
    "passes": 3,
    "start_passes": 2, "replay": 0.5,
    "budget": 0.25, "trial_events": 5000,
}  # fmt: skip

# Digests of the fields of section train, from before objectives had sections: with them a
# run that was built then is up to date now. Those of ratings are from when they got implicit parts.
FINGERPRINTS = {
    "softmax": "1366f9120b3d3ea7aecd2dc734c60b1e0afa862e3218efb08bcea98f9d2d8910",
    "bpr": "d2152647a236f00e5195bcb0ab461988f8b660b6b34a1dd6c217a6780be44584",
    "ccl": "4e1541cc11d705acc8917a39a35f3278007a4610a3ac272d97d28236539addbb",
    "item2vec": "97ef17533e225559d1bbcce2f71dab2db679f7320617334a9fca68e985da0df5",
    "item2vec-softmax": "2126681fd73ebf933829d09aa6561feed6cac230612c655dad192d743b315d88",
    "rating": "f186b5b59cb5a9712767dc058eed95a7b35ddf8991da8ddf8c49025111e9499a",
    "ials": "614d46bf7d17d01e5f565e2c77565b2dc605b717596832316c924d9ea7aef09b",
    "examples/movielens-100k.toml":
        "b079ed69af83653c916dec8866d18030b438b83dece5761eb1c3d9b8f3afc9a6",
    "examples/movielens-100k-item2vec.toml":
        "da9236b487d2e3a597944bd6e137a550930cc26f8ff42e4796a0328d2897af74",
    "examples/movielens-100k-ratings.toml":
        "5a4a2fef9a39a1e420afbc9c38257a85cf03e9cc0772d61b8e09102658b8227b",
}  # fmt: skip
ROOT = Path(__file__).parents[2]


def with_train(**train: Any) -> Config:
    return parse({**BASE, "train": train})


def in_place(objective: str, keys: dict[str, Any]) -> dict[str, Any]:
    """Section train with `keys` where they stand for the objective."""
    reads = OBJECTIVE_KEYS[objective]
    shared = {key: value for key, value in keys.items() if key in reads.shared}
    own = {key: value for key, value in keys.items() if key in reads.own}
    return {"objective": objective, **shared, **({reads.section: own} if own else {})}


def test_names_are_those_of_the_stages() -> None:
    assert set(OBJECTIVE_KEYS) == {"auto", *OBJECTIVES}
    fields = TrainConfig.model_fields
    assert set(get_args(fields["optimizer"].annotation)) == set(OPTIMIZERS)
    assert set(get_args(fields["schedule"].annotation)) == set(SCHEDULES)
    assert set(get_args(IndexConfig.model_fields["kind"].annotation)) == {"auto", *INDEXES}


def test_every_key_is_tried_below() -> None:
    reads = [{*keys.shared, *keys.own} for keys in OBJECTIVE_KEYS.values()]
    assert set(VALUES) == set.union(*reads) - set.intersection(*reads)


@pytest.mark.parametrize("objective", OBJECTIVE_KEYS)
def test_a_key_that_the_objective_does_not_read_is_refused(objective: str) -> None:
    keys = OBJECTIVE_KEYS[objective]
    for key in (key for key in VALUES if not keys.reads(key)):
        readers = ", ".join(readers_of(key))
        assert readers
        said = f"not read by objective '{objective}', only by {readers}"
        for path, train in (
            (f"train.{key}", {key: VALUES[key]}),
            (f"train.{keys.section}.{key}", {keys.section: {key: VALUES[key]}}),
        ):
            with pytest.raises(ConfigError) as stop:
                with_train(objective=objective, **train)
            assert str(stop.value) == f"config: {path}: {said}"


@pytest.mark.parametrize("objective", OBJECTIVE_KEYS)
def test_the_section_of_another_objective_is_refused(objective: str) -> None:
    own = OBJECTIVE_KEYS[objective].section
    for section in {keys.section for keys in OBJECTIVE_KEYS.values()} - {own}:
        with pytest.raises(ConfigError, match=rf"train\.{section}: not read by objec"):
            with_train(objective=objective, **{section: {}})


@pytest.mark.parametrize("objective", OBJECTIVE_KEYS)
def test_old_places_are_read_alike_and_noted(objective: str) -> None:
    keys, notes = OBJECTIVE_KEYS[objective], list[str]()
    # Sections that there were before hold their keys as they did.
    before = {
        "margin",
        "negative_weight",
        "negatives_per_pair",
        "history",
        *OBJECTIVE_KEYS["ials"].own,
    }
    values = {key: value for key, value in VALUES.items() if keys.reads(key)}
    if "loss" in values:  # BSL, which has no biases, nor what PSL reads
        left_out = {"bias", "l2_bias", "activation"}
        values = {key: value for key, value in values.items() if key not in left_out}
    old = {key: value for key, value in values.items() if key not in before}
    nested = {key: value for key, value in values.items() if key in before and key in keys.own}
    section = {keys.section: nested} if nested else {}
    train = {"objective": objective, **old, **section}
    one = parse({**BASE, "train": train}, note=notes.append)
    two = parse({**BASE, "train": in_place(objective, values)}, note=pytest.fail)
    assert one == two
    assert stage_fields(one, ["train"]) == stage_fields(two, ["train"])
    moved = [key for key in old if key in keys.own and key != "smoothing"]
    expected = {f"train.{key} is now train.{keys.section}.{key}" for key in moved}
    if "smoothing" in old and "smoothing" in keys.own:
        expected |= {
            f"train.smoothing.{key} is now train.{keys.section}.smoothing.{key}"
            for key in VALUES["smoothing"]
        }
    assert sorted(notes) == sorted(expected)
    for key, value in values.items():
        found = getattr(one.train, key, None)
        nested_model = getattr(one.train, keys.section, None)
        found = getattr(nested_model, key) if found is None else found
        assert found == value or key == "smoothing"


@pytest.mark.parametrize("objective", OBJECTIVE_KEYS)
def test_the_resolved_config_has_what_the_objective_reads_and_no_more(objective: str) -> None:
    keys, one = OBJECTIVE_KEYS[objective], with_train(**in_place(objective, {}))
    tree = tomllib.loads(toml_of(one))
    assert parse(tree, note=pytest.fail) == one
    train = tree["train"]
    assert {key for key in VALUES if key in train} == set(keys.shared)
    not_given = {"l2_bias", "temperature_ratio", "activation", "top_k_temperature", "top_k_epochs"}
    left_out = not_given - set(keys.defaults)
    if one.train.similarity == "dot" and "similarity" in keys.own:
        left_out.add("smoothing")
    assert set(train.get(keys.section, {})) == set(keys.own) - left_out


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_fields_of_fingerprints_are_what_they_were(name: str) -> None:
    one = load(ROOT / name) if "/" in name else with_train(objective=name)
    assert digest(stage_fields(one, ["train"])) == FINGERPRINTS[name] or "/" in name
    if "/" in name:
        fields = stage_fields(one, ("run.partitions", "run.seed", "train"))
        assert digest(fields) == FINGERPRINTS[name]


@pytest.mark.parametrize("objective", OBJECTIVE_KEYS)
def test_a_stored_config_of_an_older_version_opens(objective: str) -> None:
    """It has every key in its old place, whether the objective reads it or not."""
    fields = {
        name: getattr(with_train(objective=objective).train, name)
        for name in TrainConfig.model_fields
    }
    train = {k: v.model_dump() if hasattr(v, "model_dump") else v for k, v in fields.items()}
    with pytest.raises(ConfigError, match="not read by objective"):
        parse({**BASE, "train": train})
    again = parse({**BASE, "train": train}, stored=True)
    assert again == with_train(objective=objective)


def test_a_key_in_both_places_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.logq: given twice, also as train\.softmax\.log"):
        with_train(logq=True, softmax={"logq": True})


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"objective": "sofmax"}, r"train\.objective: 'sofmax' is not known; did you mean 'soft"),
        ({"objective": 3}, r"train\.objective: .*got 3"),
        ({"optimizer": "sgd"}, r"train\.optimizer: 'sgd' is not known; allowed: adagrad, adam"),
        ({"schedule": "step"}, r"train\.schedule: .*allowed: constant, linear, cosine"),
        ({"metric": "rmse"}, r"train\.metric: 'rmse' is not measured.*allowed: ndcg@10"),
        ({"negatives": 0}, r"train\.softmax\.negatives: .*needs negatives; set it above 0 or "),
        ({"l2_bias": 0.1}, r"train\.softmax\.l2_bias: read only with bias = true"),
        ({"similarity": "dot", "smoothing": {"weight": 1}}, r"train\.softmax\.smoothing: read o"),
        ({"softmax": {"temperature_ratio": 1.2}}, r"softmax\.temperature_ratio: read only"),
        ({"softmax": {"loss": "bsl", "similarity": "dot"}}, r"softmax\.loss: 'bsl' needs simila"),
        ({"softmax": {"loss": "bsl", "bias": True}}, r"train\.softmax\.loss: 'bsl' needs .*bias"),
        ({"softmax": {"loss": "bsl", "temperature_ratio": 0}}, r"ratio: .*greater than 0, got 0"),
        ({"softmax": {"loss": "psll"}}, r"softmax\.loss: 'psll' is not known; did you mean 'psl'"),
        ({"softmax": {"loss": "psl", "similarity": "dot"}}, r"softmax\.loss: 'psl' needs simila"),
        ({"softmax": {"loss": "psl", "temperature": 1}}, r"temperature: below 1 with loss = 'psl'"),
        ({"softmax": {"activation": "tanh"}}, r"activation: read only with loss = 'psl'"),
        ({"softmax": {"top_k_epochs": 3}}, r"top_k_epochs: read only with top_k above 0"),
        ({"objective": "bpr", "loss": "bsl"}, r"train\.loss: not read by objective 'bpr', only"),
        ({"temprature": 1}, r"train\.temprature: unknown key; did you mean 'train\.softmax\.te"),
        ({"softmax": {"temprature": 1}}, r"softmax\.temprature: unknown key; did you mean 'temper"),
        ({"softmax": {"dim": 9}}, r"train\.softmax\.dim: unknown key; .*allowed: activation, bi"),
        ({"softmax": {"temperature": 0}}, r"train\.softmax\.temperature: .*greater than 0, got 0"),
        ({"temperature": 0}, r"train\.softmax\.temperature: .*greater than 0, got 0"),
        ({"softmax": {"smoothing": {"wait": 1}}}, r"train\.softmax\.smoothing\.wait: unknown k"),
        ({"softmax": 3}, r"train\.softmax: a section is needed, got 3"),
        ({"objective": "bpr", "logq": True, "dim": 0}, r"logq: not read .*; train\.dim: .*got 0"),
    ],
)  # fmt: skip
def test_errors_are_sentences(train: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_train(**train)


def test_set_wins_over_the_file_wherever_the_key_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        '[run]\nname = "a"\n[events]\npaths = "a.tsv"\ntime = "t"\n'
        "[train]\nsmoothing.weight = 0.5\ntemperature = 0.2\n",
        encoding="utf-8",
    )
    notes: list[str] = []
    one = load(path, ["train.temperature=0.3", "train.smoothing.item_power=0.1"], notes.append)
    assert (one.train.temperature, one.train.smoothing.weight) == (0.3, 0.5)
    assert one.train.smoothing.item_power == 0.1
    assert sorted(notes) == [
        "train.smoothing.item_power is now train.softmax.smoothing.item_power",
        "train.smoothing.weight is now train.softmax.smoothing.weight",
        "train.temperature is now train.softmax.temperature",
    ]
    two = load(path, ["train.objective=bpr", "train.bpr.similarity=cosine"])
    assert (two.train.objective, two.train.temperature) == ("bpr", 0.2)


def test_old_names_are_read_and_noted() -> None:
    signals = {"type": "e", "types": {"a": 1}}
    old = {
        **BASE,
        "events": {**BASE["events"], "signals": {**signals, "max_user_day": 5}},
        "train": {"objective": "ials", "ials": {"block": 4}},
    }
    new = {
        **BASE,
        "events": {**BASE["events"], "signals": {**signals, "max_user_events_per_day": 5}},
        "train": {"objective": "ials", "ials": {"block_size": 4}},
    }
    notes: list[str] = []
    one = parse(old, note=notes.append)
    assert one == parse(new, note=pytest.fail)
    assert notes == [
        "events.signals.max_user_day is now events.signals.max_user_events_per_day",
        "train.ials.block is now train.ials.block_size",
    ]
    fields = stage_fields(one, ["events", "train"])
    assert (fields["events.signals.max_user_day"], fields["train.ials.block"]) == (5, 4)
    assert old["train"] == {"objective": "ials", "ials": {"block": 4}}
    both = {"objective": "ials", "ials": {"block": 4, "block_size": 4}}
    with pytest.raises(
        ConfigError, match=r"train\.ials\.block: given twice, also as train\.ials\.b"
    ):
        with_train(**both)


@pytest.mark.parametrize(
    ("train", "objective"),
    [
        ({}, "auto"),
        ({"dim": 32, "epochs": 3, "refit": True, "weight_power": 1.0}, "auto"),
        ({"auto": {"budget": 1.0}}, "auto"),
        # Sections that were written when softmax was the default.
        ({"temperature": 0.2}, "softmax"),
        ({"batch_size": 100}, "softmax"),
        ({"softmax": {"negatives": 7}}, "softmax"),
        ({"objective": "auto"}, "auto"),
    ],
)
def test_the_objective_of_a_section_that_names_none(train: dict[str, Any], objective: str) -> None:
    config = with_train(**train)
    assert config.train.objective == objective
    assert parse(config.model_dump(mode="json"), stored=True) == config


def test_softmax_by_its_keys_has_the_fingerprint_of_softmax_by_name() -> None:
    assert stage_fields(with_train(temperature=0.2), ["train"]) == stage_fields(
        with_train(objective="softmax", softmax={"temperature": 0.2}), ["train"]
    )


def test_bsl_has_keys_and_fingerprint_of_its_own() -> None:
    softmax = stage_fields(with_train(softmax={}), ["train"])
    assert stage_fields(with_train(softmax={"loss": "softmax"}), ["train"]) == softmax
    assert not {"train.loss", "train.temperature_ratio"} & set(softmax)
    one = with_train(softmax={"loss": "bsl"})
    given = with_train(softmax={"loss": "bsl", "temperature_ratio": 1.1})
    assert one == given == parse(tomllib.loads(toml_of(one)), note=pytest.fail)
    fields = stage_fields(one, ["train"])
    assert fields == {**softmax, "train.loss": "bsl", "train.temperature_ratio": 1.1}


def test_psl_and_top_k_have_keys_of_their_own() -> None:
    softmax = stage_fields(with_train(softmax={}), ["train"])
    assert stage_fields(with_train(softmax={"top_k": 0}), ["train"]) == softmax
    for given, fields in (
        ({"loss": "psl"}, {"loss": "psl", "activation": "relu"}),
        ({"top_k": 20}, {"top_k": 20, "top_k_temperature": 1.0, "top_k_epochs": 5}),
    ):
        one = with_train(softmax=given)
        assert one == with_train(softmax=fields) == parse(tomllib.loads(toml_of(one)))
        expected = {**softmax, **{f"train.{key}": value for key, value in fields.items()}}
        assert stage_fields(one, ["train"]) == expected


def test_auto_allows_more_dimensions() -> None:
    assert (with_train().train.dim, with_train(objective="softmax").train.dim) == (512, 64)
    fields = stage_fields(with_train(), ["train"])
    assert fields["train.auto.budget"] == 0.5
    assert "train.auto.budget" not in stage_fields(with_train(objective="ials"), ["train"])
