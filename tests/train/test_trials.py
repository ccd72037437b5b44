"""Objective auto: what is tried, what it may cost, and what is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from embedmill.pipeline import train
from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import WorkerTask, load_trainer
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.train_events import Events
from embedmill.pipeline.train.plan import TrainingSize
from embedmill.pipeline.train.resources.budget import size_of
from embedmill.pipeline.train.trials.candidate import Candidate
from embedmill.pipeline.train.trials.counted_cost import training_cost
from embedmill.pipeline.train.trials.decomposition import PASSES
from embedmill.pipeline.train.trials.grid import largest
from embedmill.pipeline.train.trials.run_trials import Trials, with_train
from embedmill.pipeline.train.trials.sampling import events_of_users
from embedmill.pipeline.train.trials.search import Outcome, PlannedTrial, Selection, search
from embedmill.schemas.train import TRIALS
from tests.support.ranks import run_ranks
from tests.support.runs import planted
from tests.support.trained import Notes, train_rank
from tests.support.worlds import PlantedWorld

DENSE = TrainingSize(users=6040, items=3706, train=800_000, valid=100_000)
SPARSE = TrainingSize(users=30_000, items=41_000, train=720_000, valid=91_000)
LARGE = TrainingSize(users=10_000_000, items=1_000_000, train=100_000_000, valid=10_000_000)


def searched(
    size: TrainingSize,
    values: dict[str, float],
    auto: TrainConfig | None = None,
    by_dim: float = 5e-6,
) -> tuple[list[PlannedTrial], Selection]:
    """The trials and the choice where a trial has its objective's value, plus a little by grid.

    `by_dim` is the share that a dimension adds.
    """
    steps, planned = search(auto or TrainConfig(), size), list[PlannedTrial]()
    one = next(steps)
    while True:
        planned.append(one)
        settings = one.candidate.settings
        bonus = 0.001 if settings.get("ials.regularization") == 0.011 else 0.0
        bonus += 0.001 if settings.get("temperature") == 0.08 else 0.0
        value = values.get(one.candidate.objective, 0.01)
        bonus += one.candidate.dim * by_dim * value
        try:
            one = steps.send(Outcome(one.candidate, value + bonus))
        except StopIteration as stop:
            return planned, stop.value


def test_the_best_settings_of_the_best_objective_win() -> None:
    _, choice = searched(DENSE, {"ials": 0.24, "softmax": 0.22})
    assert (choice.candidate.objective, choice.epochs) == ("ials", 10)
    assert choice.candidate.settings["ials.regularization"] == 0.011
    planned, choice = searched(SPARSE, {"ials": 0.09, "softmax": 0.10})
    assert choice.candidate.objective == "softmax"
    assert choice.candidate.settings["temperature"] == 0.08
    assert planned[0].candidate.objective == "spectral"  # the cheapest comes first
    # A closed form that leads does not end the search.
    _, choice = searched(SPARSE, {"spectral": 0.09, "ials": 0.08, "softmax": 0.10})
    assert choice.candidate.objective == "softmax"
    _, choice = searched(SPARSE, {"spectral": 0.3, "ials": 0.09, "softmax": 0.10})
    assert (choice.candidate.objective, choice.epochs) == ("spectral", 1)


def test_unobserved_weights_grow_with_density() -> None:
    for size, least in ((DENSE, 0.29), (SPARSE, 0.0047)):
        planned, _ = searched(size, {"ials": 0.2, "softmax": 0.1})
        weights = {one.candidate.settings.get("ials.unobserved_weight") for one in planned}
        assert min(w for w in weights if w) == least


def test_one_candidate_of_a_family_that_is_far_behind_is_tried() -> None:
    planned, _ = searched(SPARSE, {"spectral": 0.2, "ials": 0.15, "softmax": 0.15})
    assert [one.candidate.objective for one in planned].count("ials") == 1
    assert [one.candidate.objective for one in planned].count("softmax") == 1
    planned, _ = searched(DENSE, {"spectral": 0.2, "ials": 0.2})
    assert "softmax" not in {one.candidate.objective for one in planned}
    # More dimensions did not help spectral, so ials is not tried with more.
    assert {one.candidate.dim for one in planned if one.candidate.objective == "ials"} == {64}


def test_trials_of_spectral_share_a_decomposition() -> None:
    planned, _ = searched(SPARSE, {"spectral": 0.2})
    first, *others = [one.cost for one in planned if one.candidate.objective == "spectral"]
    assert max(others) < first / 2
    # Each larger dimension is better here, by less than what decides for it.
    dims = [one.candidate.dim for one in planned if one.candidate.objective == "spectral"]
    assert {64, 128, 256, 512} == set(dims)
    assert searched(SPARSE, {"spectral": 0.2})[1].candidate.dim == 64


@pytest.mark.parametrize("size", [DENSE, SPARSE, LARGE])
@pytest.mark.parametrize("softmax", [0.1, 0.19, 0.3])
def test_trials_cost_half_of_a_training_at_most(size: TrainingSize, softmax: float) -> None:
    auto = TrainConfig()
    planned, _ = searched(size, {"ials": 0.2, "softmax": softmax})
    dims = {"spectral": 512, "ials": 256, "softmax": 256}
    firsts = {one.candidate.objective: one.candidate for one in reversed(planned)}
    dearest = max(
        training_cost(
            one.with_settings(dim=dims[name]).config(auto, 1 if name == "spectral" else 10), size
        )
        for name, one in firsts.items()
    )
    # The first trial has the decomposition, which others share. Those may cost a training, and each
    # family six seconds.
    closed = training_cost(firsts["spectral"].with_settings(dim=512).config(auto, 1), size)
    free = max(6.0, closed) + 6.0 * (len(firsts) - 1) + planned[0].cost
    assert sum(one.cost for one in planned) <= max(free, 0.5 * dearest)


def test_what_may_have_fewer_dimensions_than_the_leader_gained_from_is_not_tried() -> None:
    values = {"spectral": 0.2, "ials": 0.19, "softmax": 0.2}
    planned, choice = searched(SPARSE, values, by_dim=5e-5)
    assert (choice.candidate.objective, choice.candidate.dim) == ("spectral", 512)
    assert {one.candidate.objective for one in planned} == {"spectral"}
    # With at most 256 dimensions, all families may have as many.
    planned, _ = searched(SPARSE, values, TrainConfig(dim=256), by_dim=5e-5)
    assert "softmax" in {one.candidate.objective for one in planned}


def test_trials_keep_enough_events_of_items() -> None:
    # 18 events an item: of a third of the users, items would look rarer than they are.
    assert {one.users for one in searched(SPARSE, {"spectral": 0.2})[0]} == {1.0}
    many = TrainingSize(users=60_000, items=1000, train=900_000, valid=100_000)
    assert {one.users for one in searched(many, {"spectral": 0.2})[0]} == {1 / 3}


def test_neighbours_of_the_best_settings_are_tried_until_none_is_better() -> None:
    steps = search(TrainConfig(dim=64), SPARSE)
    one, powers = next(steps), list[float]()
    while one is not None:
        power = float(str(one.candidate.settings.get("spectral.popularity_power", 0)))
        powers.append(power)
        # Best at .56, away from the grid by more than a step.
        value = 0.2 - abs(0.56 - power) / 10
        try:
            one = steps.send(Outcome(one.candidate, value))
        except StopIteration as stop:
            found: Selection = stop.value
            break
    assert {0.35, 0.45, 0.55} <= set(powers)
    assert found.candidate.settings["spectral.popularity_power"] == 0.55


def test_few_rows_with_a_large_catalogue_leave_room_for_dimensions() -> None:
    size = TrainingSize(users=981, items=41_857, train=84_000, valid=10_000)
    planned, _ = searched(size, {"spectral": 0.2})
    assert {64, 128, 256, 512} <= {one.candidate.dim for one in planned}


def test_a_small_budget_leaves_trials_out_and_dimensions_are_a_limit() -> None:
    auto = TrainConfig.model_validate({"dim": 16, "epochs": 2})
    planned, choice = searched(DENSE, {"ials": 0.2, "softmax": 0.1}, auto)
    assert choice.candidate.dim == 16
    assert choice.epochs == 2
    assert all(one.epochs <= 2 for one in planned)
    none = TrainConfig.model_validate({"auto": {"budget": 0.001}})
    assert len(searched(LARGE, {"ials": 0.2, "softmax": 0.1}, none)[0]) < len(
        searched(LARGE, {"ials": 0.2, "softmax": 0.1})[0]
    )


def test_large_logs_are_tried_on_some_of_their_users() -> None:
    planned, _ = searched(LARGE, {"ials": 0.2, "softmax": 0.1})
    assert all(one.users * LARGE.train <= 2_000_000 for one in planned)


def test_users_are_drawn_by_hash_whole() -> None:
    user_E = torch.arange(10_000).repeat_interleave(3).int()
    events = Events(user_E, user_E, torch.ones(1).expand(30_000), (12_000, 18_000))
    half, tenth = (events_of_users(events, share, seed=1) for share in (0.5, 0.1))
    assert sum(half.sizes) == len(half) == pytest.approx(15_000, rel=0.05)
    users = set(half.user_E.tolist())
    assert len(users) * 3 == len(half)
    assert set(tenth.user_E.tolist()) < users
    assert set(events_of_users(events, 0.5, seed=2).user_E.tolist()) != users


def auto_run(folder: Path | str, **shards: object) -> Run:
    world = PlantedWorld(users=120, items=40, clusters=4, events_per_user=9)
    settings = {"objective": "auto", "dim": 16, "epochs": 4}
    return planted(folder, world, train=settings, shards=shards)


def test_trains_what_is_chosen_and_is_up_to_date(tmp_path: Path) -> None:
    run = auto_run(tmp_path)
    notes = Notes()
    train.build(run, run.writer("train"), notes)
    artifact = run.artifact("train")
    found = artifact.read_json(TRIALS)
    model = artifact.read_json("model.json")
    assert model["objective"] == found.chosen["objective"] in ("spectral", "ials", "softmax")
    assert model["dim"] == found.chosen["dim"] <= 16
    assert len([text for text in notes.texts if text.startswith("trial")]) == len(found.trials)
    best = max(found.trials, key=lambda one: one.metrics["ndcg@10"])
    assert best.metrics["ndcg@10"] > 0.1
    assert run.up_to_date("train")
    again = auto_run(tmp_path / "again")
    train.build(again, again.writer("train"), Quiet())
    assert again.manifest("train").content == run.manifest("train").content  # type: ignore[union-attr]


class StopAtError(Exception):
    pass


class StopAt(Quiet):
    def __init__(self, text: str) -> None:
        self.text = text

    def note(self, text: str) -> None:
        if text.startswith(self.text):
            raise StopAtError


def test_goes_on_with_the_next_trial(tmp_path: Path) -> None:
    run = auto_run(tmp_path / "stopped")
    with pytest.raises(StopAtError):
        train.build(run, run.writer("train"), StopAt("trial 4"))
    notes = Notes()
    train.build(run, run.writer("train"), notes)
    assert notes.texts[0].startswith("trial 4")
    calm = auto_run(tmp_path / "calm")
    train.build(calm, calm.writer("train"), Quiet())
    assert run.manifest("train").content == calm.manifest("train").content  # type: ignore[union-attr]
    assert not run.storage.exists("train/checkpoints/trials.json")


def test_any_number_of_workers_chooses_the_same(tmp_path: Path) -> None:
    one = auto_run(tmp_path / "1")
    train.build(one, one.writer("train"), Quiet())
    chosen = one.artifact("train").read_json(TRIALS).chosen
    for outcome in run_ranks(train_rank, 2, tmp_path, auto_run(tmp_path / "2"), 0):
        assert isinstance(outcome, train.TrainingResult), outcome
        assert outcome.train.model_dump(mode="json") == chosen


def test_without_validation_ials_is_trained(tmp_path: Path) -> None:
    import numpy as np

    from tests.support.runs import store
    from tests.support.worlds import config

    none = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    some = (np.arange(6) % 3, np.arange(6) % 5, np.ones(6))
    run = Run(config(tmp_path, "log.tsv", train={"objective": "auto", "dim": 4, "epochs": 2}))
    store(run, 3, 5, {"train": some, "valid": none, "test": none})
    notes = Notes()
    train.build(run, run.writer("train"), notes)
    assert any("no trials" in text for text in notes.texts)
    model = run.artifact("train").read_json("model.json")
    assert (model["objective"], model["dim"], model["best_epoch"]) == ("ials", 4, 0)
    assert run.artifact("train").read_json(TRIALS).trials == ()


def test_a_slice_of_the_shared_decomposition_is_what_spectral_trains(tmp_path: Path) -> None:
    # 16 dimensions of 40 items: in a slice as in a training, the scores are those of the subspace.
    run = auto_run(tmp_path)
    task = WorkerTask.of(run, run.writer("train"))
    size = size_of(with_train(run, largest(run.config.train)))
    settings = {"spectral.ridge": 3.0, "spectral.popularity_power": 0.3}
    trials = Trials(task, size, Group(), Quiet())
    slices = PlannedTrial(Candidate("spectral", 16, settings), 1, 1.0, 0.0)
    [(trainer, model)] = trials.models(slices)
    trained = TrainConfig.model_validate(
        {
            "objective": "spectral",
            "dim": 16,
            "spectral": {"ridge": 3.0, "popularity_power": 0.3, "passes": PASSES},
        }
    )
    one = load_trainer(WorkerTask(with_train(run, trained), task.identity), Group(), Cursor())
    take_step = one.start_epoch()
    for step in range(one.plan.steps):
        take_step(step)
    found, expected = (each.users.weight @ each.items.weight.T for each in (model, one.model))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    # Fewer dimensions are the first columns of the same vectors.
    low = PlannedTrial(Candidate("spectral", 3, settings), 1, 1.0, 0.0)
    [(again, narrow)] = trials.models(low)
    assert again is trainer
    torch.testing.assert_close(narrow.users.weight, model.users.weight[:, :3])


def test_short_trainings_are_in_this_process(tmp_path: Path) -> None:
    def started(**settings: object) -> tuple[str, bool]:
        world = PlantedWorld(users=60, items=20, clusters=2, events_per_user=8)
        given = {"dim": 8, "epochs": 2, "launcher": "auto", **settings}
        run = planted(tmp_path / str(len(list(tmp_path.iterdir()))), world, train=given)
        task = WorkerTask.of(run, run.writer("train"))
        task, _, result = train.train_if_short(task, Quiet())
        return task.run.config.train.objective, result is not None

    objective, ended = started(objective="auto")
    assert objective != "auto"
    assert ended == (objective in ("spectral", "ials"))
    assert started(objective="ials") == ("ials", True)
    assert started(objective="softmax") == ("softmax", False)
    assert started(objective="ials", launcher="processes") == ("ials", False)
    assert started(objective="auto", launcher="processes") == ("auto", False)
