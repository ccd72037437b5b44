"""`embedmill tune`: what it tries, what it keeps, what it writes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from embedmill.pipeline import train
from embedmill.pipeline.config import TrainConfig, auto_tree, load, parse, tuned_tree
from embedmill.pipeline.config.toml import emit
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.plan import TrainingSize
from embedmill.pipeline.train.trials.climb import climb
from embedmill.pipeline.train.trials.search import Outcome, PlannedTrial
from embedmill.schemas.checkpoints import TUNE
from tests.support.runs import planted
from tests.support.trained import Notes
from tests.support.worlds import PlantedWorld, config_tree

Cli = Callable[[Sequence[object]], tuple[int, str, str]]

SIZE = TrainingSize(users=6040, items=3706, train=800_000, valid=100_000)


def value_of(one: PlannedTrial) -> float:
    """A hill over the logarithm of the temperature, the epochs and the dimension."""
    if one.candidate.objective != "softmax":
        return 0.05
    temperature = float(one.candidate.settings["temperature"])
    distance = abs(temperature - 0.3) + abs(one.epochs - 20) / 100
    return 0.3 - 0.1 * distance + one.candidate.dim * 1e-5


def test_climbs_from_the_grid_to_the_top_of_a_hill() -> None:
    steps, planned = climb(TrainConfig(epochs=20), SIZE), list[PlannedTrial]()
    one = next(steps)
    while True:
        planned.append(one)
        try:
            one = steps.send(Outcome(one.candidate, value_of(one)))
        except StopIteration as stop:
            choice = stop.value
            break
    assert (choice.candidate.objective, choice.candidate.dim, choice.epochs) == ("softmax", 256, 20)
    assert choice.candidate.settings["temperature"] == pytest.approx(0.3, abs=0.04)
    assert {one.users for one in planned} == {1.0}
    assert len({(one.candidate.key, one.epochs) for one in planned}) == len(planned)
    assert max(map(value_of, planned)) == value_of(
        next(one for one in planned if (one.candidate, one.epochs) == (choice.candidate, 20))
    )


def tune_run(folder: Path | str) -> Run:
    world = PlantedWorld(users=120, items=40, clusters=4, events_per_user=9)
    return planted(folder, world, train={"objective": "auto", "dim": 4, "epochs": 2})


def test_stops_with_the_best_so_far_and_goes_on(tmp_path: Path) -> None:
    run = tune_run(tmp_path)
    first = train.tune_settings(run, 0.0, Quiet())
    assert (len(first.trials), first.complete) == (1, False)
    assert len(TUNE.decode(run.storage.read(TUNE.path)).trials) == 1
    notes = Notes()
    found = train.tune_settings(run, 10.0, notes)
    assert found.complete
    assert notes.texts[0].startswith("trial 2:")
    values = [one.metrics[found.metric] for one in found.trials]
    assert values == sorted(values, reverse=True)
    assert found.trials[0].objective == found.chosen.objective
    assert all(one.dim <= 4 and one.epochs <= 2 for one in found.trials)
    again = Notes()
    assert train.tune_settings(run, 0.0, again) == found
    assert not again.texts
    assert run.manifest("train") is None
    assert not run.storage.exists("train/checkpoints/trials.json")


def write_config(folder: Path, train_text: str, **shards: float) -> Path:
    """A log of two groups of users and items, and its TOML."""
    lines = [
        f"u{user}\ti{(user % 2) * 8 + (user * 3 + step) % 8}\t{1000 + step * 90000}\t1"
        for user in range(60)
        for step in range(6)
    ]
    lines = ["user_id\titem_id\ttime\trating", *lines]
    (folder / "log.tsv").write_text("\n".join(lines) + "\n")
    sections = config_tree(folder / "runs", str(folder / "log.tsv"))
    sections["shards"] = {"split": "random", "valid": 0.2, "test": 0.2, **shards}
    sections["train"] = {"launcher": "inline", "workers": 1, **tomllib.loads(train_text)}
    text = emit(sections)
    path = folder / "small.toml"
    path.write_text(text)
    return path


def test_writes_a_toml_that_trains_what_won(tmp_path: Path, embedmill: Cli) -> None:
    path = write_config(tmp_path, "dim = 4\nepochs = 2\nvalid_users = 50", valid=0.2, test=0.2)
    code, out, err = embedmill(["tune", path, "--minutes", "0"])
    assert code == 0, err
    assert "best so far" in out
    assert all(len(line) <= 80 for line in out.splitlines() if str(tmp_path) not in line)
    written = load(tmp_path / "small.tuned.toml")
    assert written.train.objective in ("spectral", "ials", "softmax")
    assert (written.train.dim, written.train.valid_users) == (4, 50)
    assert written.events == load(path).events
    code, _, err = embedmill(["tune", path])
    assert code == 2
    assert "--force" in err
    code, out, err = embedmill(["tune", path, "--minutes", "0", "--to-stdout"])
    assert code == 0
    assert tomllib.loads(out)["train"]["objective"] == written.train.objective
    assert "trial 1:" not in err  # kept from the first call


def test_refuses_what_it_cannot_compare(tmp_path: Path, embedmill: Cli) -> None:
    path = write_config(tmp_path, 'objective = "rating"')
    code, _, err = embedmill(["tune", path])
    assert code == 2
    assert "learns from ratings" in err
    path = write_config(tmp_path, "dim = 4", valid=0.0, test=0.2)
    code, _, err = embedmill(["tune", path])
    assert code == 2
    assert "shards.valid" in err


def test_keys_of_an_objective_make_room_for_those_that_won(tmp_path: Path) -> None:
    path = write_config(
        tmp_path, 'objective = "ials"\ndim = 32\nrefit = true\n[ials]\nblock_size = 4'
    )
    auto = auto_tree(path, ["train.dim=16"])
    given = {"launcher": "inline", "workers": 1, "dim": 16, "refit": True}
    assert auto["train"] == {"objective": "auto", **given}
    settings = {"temperature": 0.12, "smoothing.weight": 0.5}
    tuned = tuned_tree(auto, "softmax", {"dim": 8, "epochs": 10}, settings)
    config = parse(tomllib.loads(emit(tuned))).train
    assert (config.objective, config.dim, config.refit) == ("softmax", 8, True)
    assert (config.temperature, config.smoothing.weight) == (0.12, 0.5)
    own = {"spectral.ridge": 4.0, "spectral.popularity_power": 0.3}
    tuned = tuned_tree(auto, "spectral", {"dim": 8, "epochs": 1}, own)
    assert parse(tuned).train.spectral.ridge == 4.0
    path = write_config(tmp_path, 'objective = "item2vec"')
    with pytest.raises(ConfigError, match="pairs of items"):
        auto_tree(path, ["shards.pairs={}"])


class Interrupt(Quiet):
    def note(self, text: str) -> None:
        if text.startswith("trial 3"):
            raise KeyboardInterrupt


def test_an_interrupted_search_keeps_its_trials(tmp_path: Path) -> None:
    run = tune_run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train.tune_settings(run, 10.0, Interrupt())
    assert len(train.tune_settings(run, 0.0, Quiet()).trials) == 2
