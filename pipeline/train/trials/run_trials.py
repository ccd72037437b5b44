"""Runs the trials of objective `auto` on the workers that train afterwards, and keeps them.

Every worker runs them alike: a trial is a training like any other, with a few epochs on the
events of some users, without checkpoints. Results are stored after each trial, so that an
interrupted search goes on with the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from textwrap import wrap

from embedmill.pipeline.config import TrainConfig
from embedmill.pipeline.errors import NotFiniteError
from embedmill.pipeline.log import Progress
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.train.assembly import WorkerTask, assemble
from embedmill.pipeline.train.checkpoints.checkpoint import Cursor
from embedmill.pipeline.train.collectives import Group
from embedmill.pipeline.train.data.examples import Examples
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.objectives.example_sources import EVENTS
from embedmill.pipeline.train.plan import Layout, TrainingSize
from embedmill.pipeline.train.resources.budget import size_of
from embedmill.pipeline.train.trainer import Trainer
from embedmill.pipeline.train.trials.candidate import SMOOTHING_WEIGHT, Candidate
from embedmill.pipeline.train.trials.decomposition import UNSCALED, Decomposition
from embedmill.pipeline.train.trials.grid import SMOOTHING_WEIGHTS, largest
from embedmill.pipeline.train.trials.sampling import events_of_users
from embedmill.pipeline.train.trials.search import (
    Outcome,
    PlannedTrial,
    Selection,
    Steps,
    decomposition_key,
    search,
    trial_users,
    without_trials,
)
from embedmill.pipeline.train.trials.stored_trials import StoredTrials
from embedmill.pipeline.train.validation import Validation
from embedmill.schemas.train import Trial

__all__ = ["Trials", "candidate_of", "choose_settings", "with_train"]

_COLUMNS = 70  # of a line for the user, who sees it indented


def choose_settings(
    task: WorkerTask, group: Group, progress: Progress
) -> tuple[WorkerTask, list[Trial]]:
    """The task with the objective and the settings to train with; a collective.

    Args:
        task: its config may have objective "auto"; any other is returned as it is.
        group: the workers.
        progress: gets a note for each trial and one for the choice.

    Returns:
        the task, the same at every worker; and the trials, empty where there were none.
    """
    auto = task.run.config.train
    if auto.objective != "auto":
        return task, []
    size = size_of(with_train(task.run, largest(auto)))
    stored = StoredTrials(task.storage, task.identity, group)
    trials = Trials(task, size, group, progress)
    choice = trials.run(search(auto, size), stored) if size.valid else None
    choice = choice or without_trials(auto, size)
    chosen = choice.candidate.config(auto, choice.epochs)
    if group.rank == 0:
        progress.note(f"chosen: {choice.candidate}")
    return replace(task, run=with_train(task.run, chosen)), trials.finished


def with_train(run: Run, train: TrainConfig) -> Run:
    """The run with another section train."""
    return Run(run.config.model_copy(update={"train": train}))


class Trials:
    """The trials of a training on one worker; `finished` are the same at every worker."""

    def __init__(
        self, task: WorkerTask, size: TrainingSize, group: Group, progress: Progress
    ) -> None:
        self._size = size
        self._task, self._group, self._progress = task, group, progress
        self._layout = Layout(task.run.config.run.partitions, group.world, group.rank)
        self._examples: Examples | None = None
        self._sampled: dict[float, Examples] = {}  # by share of the users, as what follows
        self._validations: dict[float, Validation] = {}
        self._decomposed: tuple[object, Decomposition] | None = None
        self.finished: list[Trial] = []

    def run(
        self, steps: Steps, stored: StoredTrials, more: Callable[[], bool] = lambda: True
    ) -> Selection | None:
        """All trials of a search, and its choice; None where it was stopped before its end.

        Args:
            steps: the search.
            stored: trials that were finished earlier, and where those of today are kept.
            more: asked before each trial that has not been finished earlier.
        """
        earlier = iter(stored.read())
        try:
            planned = next(steps)
            while True:
                trial = next(earlier, None)
                if trial is None or not _is_of(trial, planned):
                    earlier = iter(())  # of another grid: what follows was planned from it
                    if self.finished and not more():
                        return None
                    trial = self._run_one(planned)
                    stored.write([*self.finished, trial])
                self.finished.append(trial)
                planned = steps.send(_outcome(planned, trial, self.metric))
        except StopIteration as stop:
            choice: Selection = stop.value
            return choice

    @property
    def metric(self) -> str:
        """The metric that chooses."""
        auto = self._task.run.config.train
        return auto.metric or auto.keys.metrics[0]

    def _run_one(self, planned: PlannedTrial) -> Trial:
        """Train and validate a candidate; one that diverges has no metrics."""
        candidate = planned.candidate
        metrics: dict[str, float] = {}
        smoothing = None
        try:
            for trainer, model in self.models(planned):
                found, weight = _best_smoothing(trainer, model, self.metric)
                if not metrics or found.get(self.metric, 0.0) > metrics[self.metric]:
                    metrics, smoothing = found, weight
        except NotFiniteError:
            pass  # raised by all workers; epochs before it count
        settings = dict(candidate.settings)
        if smoothing is not None:
            settings[SMOOTHING_WEIGHT] = smoothing
        trial = Trial(
            objective=candidate.objective,
            dim=candidate.dim,
            settings=settings,
            epochs=planned.epochs,
            users=round(planned.users, 4),
            cost=round(planned.cost, 4),
            metrics=metrics,
        )
        if self._group.rank == 0:
            value = metrics.get(self.metric)
            said = "diverged" if value is None else f"{self.metric} {value:.4f}"
            number = len(self.finished) + 1
            line = f"trial {number}: {candidate_of(trial)} · {said}"
            for part in wrap(line, _COLUMNS, subsequent_indent="  "):
                self._progress.note(part)
        return trial

    def models(self, planned: PlannedTrial) -> Iterator[tuple[Trainer, Model]]:
        """A trainer and the model to validate, after all epochs of a trial; of ials after each.

        A collective. Few sweeps are often best, and a training stops at the best one.
        """
        # The weight of an earlier round is left out: all weights are measured again.
        candidate = planned.candidate
        settings = {k: v for k, v in candidate.settings.items() if k != SMOOTHING_WEIGHT}
        candidate = replace(candidate, settings=settings)
        if candidate.objective != "spectral":
            for trainer in self._epochs(candidate, planned.epochs, planned.users):
                if candidate.objective == "ials" or trainer.cursor.epoch + 1 == planned.epochs:
                    yield trainer, trainer.model
            return
        decomposition = self._decomposition(candidate, planned.users)
        spectral = candidate.config(self._task.run.config.train, 1).spectral
        yield decomposition.trainer, decomposition.model(spectral, candidate.dim)

    def _decomposition(self, candidate: Candidate, users: float) -> Decomposition:
        """What trials of spectral share that differ in dimension, ridge and popularity only."""
        key = (decomposition_key(candidate), users)
        if self._decomposed is None or self._decomposed[0] != key:
            self._decomposed = None  # frees its tables
            whole = replace(candidate, dim=self._task.run.config.train.dim)
            [trainer] = self._epochs(whole.with_settings(**UNSCALED), 1, users)
            self._decomposed = key, Decomposition.of(trainer)
        return self._decomposed[1]

    def _epochs(self, candidate: Candidate, epochs: int, users: float) -> Iterator[Trainer]:
        """A trainer of a candidate after each epoch, on the events of a share of the users.

        Those of ials begin with what trials of spectral have found: as a training does, which
        takes passes of its own.
        """
        decomposition = None
        if candidate.objective == "ials":
            decomposition = self._decomposition(Candidate("spectral", candidate.dim), users)
            candidate = candidate.with_settings(init="normal")
        train = candidate.config(self._task.run.config.train, epochs)
        train = train.model_copy(update={"valid_users": trial_users(train, self._size)})
        run, examples = with_train(self._task.run, train), self._examples_of(users)
        trainer = assemble(run, examples, self._group, Cursor(), self._validations.get(users))
        self._validations[users] = trainer.data.validation
        if decomposition is not None:
            decomposition.start(trainer)
        for epoch in range(epochs):
            trainer.cursor = replace(trainer.cursor, epoch=epoch, step=0)
            take_step = trainer.start_epoch()
            for step in range(trainer.plan.steps):
                if not math.isfinite(take_step(step)):
                    raise trainer.diverged(f"step {step + 1}")
                trainer.cursor = replace(trainer.cursor, step=step + 1)
            if self._group.max(int(not trainer.model.is_finite())):
                raise trainer.diverged("after its last step")
            yield trainer

    def _examples_of(self, share: float) -> Examples:
        """The examples of a share of the users, of this worker's partitions."""
        if self._examples is None:
            with self._group.fail_together():
                self._examples = EVENTS.read(self._task.run, self._layout, refit=False)
        if share >= 1:
            return self._examples
        if share in self._sampled:
            return self._sampled[share]
        seed = self._task.run.config.run.seed
        train = events_of_users(self._examples.train, share, seed)
        valid = events_of_users(self._examples.valid, share, seed)
        self._sampled[share] = replace(self._examples, train=train, known=train, valid=valid)
        return self._sampled[share]


def _best_smoothing(
    trainer: Trainer, model: Model, metric: str
) -> tuple[dict[str, float], float | None]:
    """The metrics with the best weight of the smoothing, and the weight; None where none is."""
    validation = trainer.data.validation
    if not validation.users:
        return {}, None
    best: tuple[dict[str, float], float | None] = ({}, None)
    for smoothed, weight in _smoothed(model):
        metrics = trainer.objective.task.validate(smoothed, validation)
        if not best[0] or metrics[metric] > best[0][metric]:
            best = (metrics, weight)
    return best


def _smoothed(model: Model) -> Iterator[tuple[Model, float | None]]:
    """The model with each weight of its smoothing; as it is where it is not smoothed."""
    if model.smoothing is None:
        yield model, None
        return
    for weight in SMOOTHING_WEIGHTS:
        smoothing = replace(model.smoothing, weight=weight) if weight else None
        yield replace(model, smoothing=smoothing), weight


def _outcome(planned: PlannedTrial, trial: Trial, metric: str) -> Outcome:
    """What the search is told of a trial; one without metrics is the worst."""
    candidate = replace(planned.candidate, settings=dict(trial.settings))
    return Outcome(candidate, float(trial.metrics.get(metric, -1.0)))


def _is_of(trial: Trial, planned: PlannedTrial) -> bool:
    """Whether a stored trial is the planned one."""
    same = (candidate_of(trial).key, trial.epochs, trial.users)
    return same == (planned.candidate.key, planned.epochs, round(planned.users, 4))


def candidate_of(trial: Trial) -> Candidate:
    """What a trial tried."""
    return Candidate(trial.objective, trial.dim, dict(trial.settings))
