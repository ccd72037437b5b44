"""Variables: `{ds}` in the strings of a config, from --var, the environment and [vars]."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedmill.pipeline.config import Config, auto_tree, load, parse, stage_fields, to_toml
from embedmill.pipeline.config.toml import emit
from embedmill.pipeline.errors import ConfigError

TOML = """
[vars]
ds = 2026-11-20          # a date of TOML, a whole number and a string are text
site = "de"
shard = 7
[run]
name = "plays-{site}-{ds}"
[events]
paths = ["logs/date={ds}/part-{01,02}.csv", "logs/{shard}/{ds}-{ds}.csv"]
time = "t"
date_to = "{ds}"
filter = "regexp_matches(x, '\\\\p{L}{2}')"
[events.items]
paths = "items-{site}.tsv"
title = "{name} ({year})"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "run.toml"
    found.write_text(TOML, encoding="utf-8")
    return found


def test_values_stand_in_all_strings_and_other_braces_stay(path: Path) -> None:
    config = load(path)
    assert config.run.name == "plays-de-2026-11-20"
    assert config.events.paths == (
        "logs/date=2026-11-20/part-{01,02}.csv",
        "logs/7/2026-11-20-2026-11-20.csv",
    )
    assert config.events.date_to == "2026-11-20"
    assert config.events.filter == r"regexp_matches(x, '\p{L}{2}')"
    assert config.events.items is not None
    assert config.events.items.paths == ("items-de.tsv",)
    assert config.events.items.title == "{name} ({year})"
    assert config.vars == {"ds": "2026-11-20", "site": "de", "shard": "7"}


def test_the_command_line_comes_before_the_environment_and_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDMILL_VAR_DS", "2026-11-21")
    monkeypatch.setenv("EMBEDMILL_VAR_SITE", "fr")
    monkeypatch.setenv("EMBEDMILL_VAR_OTHER", "is of another config")
    assert load(path).run.name == "plays-fr-2026-11-21"
    given = ["ds=2026-11-22", "ds=2026-11-23"]  # the last one counts
    assert load(path, given=given).run.name == "plays-fr-2026-11-23"
    assert load(path, ["vars.ds=2026-01-01"]).run.name == "plays-fr-2026-11-21"
    assert load(path, ["run.name=x{shard}"], given=["shard=1"]).run.name == "x1"


def test_resolved_values_are_in_the_fingerprint_and_names_of_variables_are_not(path: Path) -> None:
    def fields(config: Config) -> dict[str, object]:
        return stage_fields(config, ("events",))

    one, other = load(path), load(path, given=["ds=2026-11-21"])
    assert fields(one) != fields(other)
    assert fields(load(path, ["vars.unused=3"])) == fields(one)


def test_the_resolved_toml_and_the_stored_config_read_back_equal(path: Path) -> None:
    config = load(path, given=["ds=2026-11-22"])
    again = path.with_name("again.toml")
    again.write_text(to_toml(config, described=True), encoding="utf-8")
    assert load(again) == config
    assert parse(config.model_dump(mode="json"), stored=True) == config
    plain = parse({"run": {"name": "a"}, "events": {"paths": "a", "time": "t"}})
    assert "vars" not in plain.model_dump()
    assert "[vars]" not in to_toml(plain)


def test_a_tuned_config_keeps_its_variables(path: Path) -> None:
    tree = auto_tree(path, [], ["ds=2026-11-22"])
    assert tree["run"]["name"] == "plays-{site}-{ds}"
    assert tree["vars"] == {"ds": "2026-11-22", "site": "de", "shard": "7"}
    tuned = path.with_name("tuned.toml")
    tuned.write_text(emit(tree), encoding="utf-8")
    assert load(tuned, given=["ds=2026-11-23"]).run.name == "plays-de-2026-11-23"


@pytest.mark.parametrize(
    ("sets", "given", "said"),
    [
        ([], ["dss=1"], "--var dss: no string uses {dss}, and [vars] has none; did you mean 'ds'?"),
        ([], ["q=1"], "--var q: no string uses {q}, and [vars] has none; declared: ds, sh"),
        ([], ["ds"], "'ds' is not NAME=VALUE"),
        ([], ["d-s=1"], "'d-s=1' is not NAME=VALUE"),
        ([], ["ds={site}"], "vars.ds: '{site}' holds {site}, and the values of variables are not"),
        ([], ["ds=today"], "a day such as 2026-11-24, not 'today'"),
        ([], ["ds=../x"], "run.name: string should match pattern"),
        (["run.name=x-{day}"], [], "run.name: {day} has no value; give it by --var day=..."),
        (["events.paths=logs/{dss}/*"], [], "events.paths: {dss} has no value; did you mean {ds}?"),
        (["vars.x=[1]"], [], "vars.x: input should be a valid string"),
        (["vars.x=true"], [], "vars.x: a string is needed"),
        (["vars.a-b=1"], [], "vars.a-b"),
        (["vars=1"], [], "'vars=1' is not section.key=value"),
        (["vars.x=s3://me:secret@x"], [], "holds a password"),
    ],
)  # fmt: skip
def test_wrong_variables_are_one_sentence_with_file_and_key(
    path: Path, sets: list[str], given: list[str], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, sets, given=given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_without_variables_is_read_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[run]\nname="a-{ds}"\n[events]\npaths="{x}/{a,b}"\ntime="t"\n')
    with pytest.raises(ConfigError, match=r"run.toml: run.name: {ds} has no value"):
        load(path)
    assert load(path, ["run.name=a"]).events.paths == ("{x}/{a,b}",)
    with pytest.raises(ConfigError, match=r"events.paths: {x} has no value"):
        load(path, given=["ds=1"])
    word = ["vars.x={x}"]  # a variable may stand for itself
    assert load(path, word, given=["ds=1"]).events.paths == ("{x}/{a,b}",)
    path.write_text('vars = 3\n[run]\nname="a"\n[events]\npaths="x"\ntime="t"\n')
    with pytest.raises(ConfigError, match="vars: input should be a valid dictionary"):
        load(path)
