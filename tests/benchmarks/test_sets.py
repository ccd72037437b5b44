"""Public sets: every shipped file is a config, and a new set is one file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from embedmill.pipeline.config import load

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in (BENCHMARKS / "sets").glob("*.toml"))
OWN = """
kind = "ranking"
file = "own.tsv"
metrics = ["recall@5"]
[events]
time = "ts"
[shards]
split = "last"
[evaluate]
ks = [5]
[[tuned]]
[tuned.train]
objective = "softmax"
dim = 8
[tuned.train.softmax]
temperature = 0.2
[[tuned]]
[tuned.train]
objective = "ials"
[published."A paper"]
"recall@5" = 0.5
"""


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("name", NAMES)
def test_every_set_is_a_config_with_each_of_its_settings(name: str, tmp_path: Path) -> None:
    from harness.sets import load_set, write_config
    from quality import held_out

    one = load_set(name)
    for objective in ("", *one.tuned):
        write_config(tmp_path / "run.toml", one.tree(objective), Path("/log.tsv"), one.name)
        overrides = held_out(one, one.folds[0] if one.folds else "")
        config = load(tmp_path / "run.toml", overrides, note=pytest.fail)
        assert config.train.refit
        assert config.events.paths == ("/log.tsv",)
        if objective:
            assert config.train.objective == objective
        else:
            common = {key: one.sections.get("train", {}).get(key) for key in ("dim", "epochs")}
            assert common == {"dim": None, "epochs": None}
    assert all(set(row) <= {*one.metrics} for row in one.published.values())


def test_a_set_of_ones_own_is_a_path(tmp_path: Path) -> None:
    from harness.sets import load_set, write_config

    (tmp_path / "mine.toml").write_text(OWN, encoding="utf-8")
    (tmp_path / "own.tsv").write_text("user_id\titem_id\tts\n", encoding="utf-8")
    one = load_set(str(tmp_path / "mine.toml"))
    assert one.raw() == tmp_path / "own.tsv"
    assert (one.name, one.metrics, list(one.tuned)) == ("mine", ("recall@5",), ["softmax", "ials"])
    write_config(tmp_path / "run.toml", one.tree("softmax"), one.raw(), one.name)
    train = load(tmp_path / "run.toml").train
    assert (train.dim, train.temperature, train.refit) == (8, 0.2, True)
    assert tomllib.loads(OWN)["published"] == one.published


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind = 'songs'\nfile = 'a'", "needs file, and kind as one of"),
        ("tune = 1", "unknown tune"),
    ],
)
def test_a_set_that_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    from harness.sets import load_set

    (tmp_path / "bad.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=said):
        load_set(str(tmp_path / "bad.toml"))
    with pytest.raises(SystemExit, match="no set 'nothing': a path to a TOML, or one of"):
        load_set("nothing")


def test_regret_by_hand() -> None:
    import quality
    from harness.sets import PublicSet

    def one(kind: str, *metrics: str) -> Any:
        return PublicSet("a", kind, "a", Path(), metrics, (), False, {}, {}, {}, {})

    ranked = {
        "": {"recall@20": 0.20, "ndcg@20": 0.25, "seconds": 1.0},
        "softmax": {"recall@20": 0.22, "ndcg@20": 0.20, "seconds": 2.0},
        "ials": {"recall@20": 0.21, "ndcg@20": 0.24, "seconds": 3.0},
    }
    flat = quality.regret_of(one("ranking", "recall@20", "ndcg@20"), ranked)
    assert flat["regret.recall@20"] == pytest.approx(0.02)
    assert flat["best.recall@20.objective"] == "softmax"
    assert flat["regret.ndcg@20"] == pytest.approx(-0.01)
    assert (flat["default.seconds"], flat["tuned.ials.seconds"]) == (1.0, 3.0)
    rated = {"": {"rmse": 0.9, "seconds": 1.0}, "rating": {"rmse": 0.85, "seconds": 1.0}}
    assert quality.regret_of(one("ratings", "rmse"), rated)["regret.rmse"] == pytest.approx(0.05)
