"""One global step by a loss: sample, look up, compute the loss, exchange gradients, update.

Legend: B events of this worker, U distinct users, V distinct items, K negatives, G distinct
items that this worker owns and some worker looks up, D columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from embedmill.pipeline.train.data.epoch_order import Order, order_of
from embedmill.pipeline.train.implicit_part import ImplicitParts, pending_steps
from embedmill.pipeline.train.losses import Loss, LossInput, LossResult, LossSettings
from embedmill.pipeline.train.model import Model
from embedmill.pipeline.train.runtime import Runtime
from embedmill.pipeline.train.tables.embedding import Route
from embedmill.pipeline.train.tables.optimizers import OPTIMIZERS, Update
from embedmill.pipeline.train.thresholds import THRESHOLD, set_thresholds
from embedmill.pipeline.train.training_data import TrainingData

__all__ = ["EpochSteps", "GradientStepper", "Stepper"]

_PREPARED_EVENTS = 1 << 17  # steps with about so many events of all workers are prepared together


class Stepper(Protocol):
    """What takes the steps of a training."""

    def start_epoch(
        self, epoch: int, learning_rate: Callable[[int], float]
    ) -> Callable[[int], float]:
        """Prepare an epoch.

        Args:
            epoch: number of the epoch, from 0.
            learning_rate: by step of the epoch.

        Returns:
            a collective that takes a step, given its number in the epoch. It returns the mean
            loss of the global batch, NaN or infinite if training has diverged at any worker.
        """


@dataclass(frozen=True)
class GradientStepper:
    """Takes steps against the gradient of a loss.

    Where vectors have implicit parts, the loss of a step is without its L2.
    """

    loss: Loss
    model: Model
    data: TrainingData
    runtime: Runtime
    implicit: ImplicitParts | None = None

    def start_epoch(
        self, epoch: int, learning_rate: Callable[[int], float]
    ) -> Callable[[int], float]:
        """See `Stepper`."""
        runtime, plan = self.runtime, self.data.plan
        order = order_of(self.data.taken, plan, runtime.layout, seed=runtime.seed, epoch=epoch)
        steps = EpochSteps(self, order, epoch, learning_rate)
        users, prefetcher = self.model.users.embedding, self.model.users.prefetcher
        if prefetcher is None:
            return steps.take

        def take(step: int) -> float:
            with runtime.group.timer("wait"):
                if step + 1 < plan.steps:
                    user_B = self.data.taken.user_E[order.batch(step + 1)].long()
                    prefetcher.prefetch(users.local_index(user_B))
            return steps.take(step)

        return take


class EpochSteps:
    """The steps of an epoch, to be taken in order, starting with any of them.

    Which rows a step looks up, and from which workers, is known before it. This is prepared
    for several steps together, so that workers wait for each other only twice in a step: for
    the rows and for their gradients.
    """

    def __init__(
        self,
        stepper: GradientStepper,
        order: Order,
        epoch: int,
        learning_rate: Callable[[int], float],
    ) -> None:
        self._loss, self._model = stepper.loss, stepper.model
        self._data, self._runtime = stepper.data, stepper.runtime
        self._implicit = stepper.implicit
        self._order = order
        self._epoch = epoch
        self._first = epoch * stepper.data.plan.steps
        self._learning_rate = learning_rate
        self._prepared: dict[int, PreparedStep] = {}

    def take(self, step: int) -> float:
        """Take a step, changing both tables; a collective.

        Returns:
            the mean loss of the global batch; NaN where the loss or a gradient is not finite at
            any worker. The tables cannot be used after that.
        """
        if step == 0:
            self._start_epoch()
        if step not in self._prepared:
            with self._runtime.group.timer("lookup"):
                self._prepare(step)
        prepared, group = self._prepared.pop(step), self._runtime.group
        with group.timer("lookup"):
            loss_input = self._look_up(prepared)
        with group.timer("loss"):
            result = self._loss(loss_input, self._settings)
            # A NaN or infinity in any gradient makes this sum NaN or infinite too.
            check = result.user_UD.sum().double() + result.item_VD.sum().double()
        # Summed over the workers while rows are updated; no checkpoint is written before it is
        # known to be finite.
        finish_sum = group.start_sum(torch.stack([result.loss.double(), check]))
        with group.timer("update"):
            if self._implicit is None:
                items = self._model.items.embedding
                local_G, item_GD = items.sum_gradients(prepared.route, result.item_VD)
            else:
                local_G, item_GD = self._add_l2(self._implicit, prepared, loss_input, result)
            self._update(step, (prepared.rows.local_U, result.user_UD), (local_G, item_GD))
            if self._implicit is not None:
                pending = pending_steps(step, self._data.plan.steps)
                rate = self._runtime.config.implicit_rate * self._learning_rate(step)
                if pending:
                    self._implicit.update(pending, rate)
        total, finite = finish_sum().tolist()
        return float(total) if math.isfinite(finite) else math.nan

    def candidates(self, step: int, item_B: Tensor) -> Tensor:
        """Negatives of the whole global batch, the same at every worker; a collective.

        Args:
            step: number of the step.
            item_B: items of this worker's part of the batch.

        Returns:
            int64 [K]: the drawn items, then those of the batch.
        """
        count, negatives = self._first + step, self._data.negatives
        drawn_K = negatives.draw(count)
        if not negatives.from_batch:
            return drawn_K
        layout, group = self._runtime.layout, self._runtime.group
        size_P = torch.tensor(self._data.plan.batch_sizes(step))
        position_K = negatives.batch_positions(count, int(size_P.sum()))
        # Events are in order of their partition, in the global batch and in each worker's part.
        partition_K = torch.searchsorted(size_P.cumsum(0), position_K, right=True)
        number_P = torch.bincount(partition_K, minlength=layout.partitions).tolist()
        own_P = torch.arange(layout.partitions) % layout.world == layout.rank
        others_before_P = torch.where(own_P, 0, size_P).cumsum(0)
        own_K = own_P[partition_K]
        position_K = (position_K - others_before_P[partition_K])[own_K]
        item_K = group.to_device(item_B.index_select(0, position_K))
        in_batch_K = group.gather_partition_rows(item_K, layout, number_P)
        return torch.cat([drawn_K, in_batch_K.cpu()])

    def _start_epoch(self) -> None:
        """What is to be done before an epoch's first step; a collective."""
        interval = self._runtime.config.top_k_epochs
        if interval is not None and self._epoch % interval == 0:
            with self._runtime.group.timer("wait"):
                set_thresholds(self._model, self._data, self._runtime, self._epoch)

    @property
    def _settings(self) -> LossSettings:
        """Those of the loss; L2 that owners of rows add is not among them."""
        settings = self._model.settings
        return settings if self._implicit is None else replace(settings, l2=0.0, l2_bias=0.0)

    def _add_l2(
        self,
        implicit: ImplicitParts,
        prepared: PreparedStep,
        loss_input: LossInput,
        result: LossResult,
    ) -> tuple[Tensor, Tensor]:
        """Add the L2 of vectors with implicit parts, whose owners alone know these; a collective.

        Args:
            implicit: the implicit parts.
            prepared: the step.
            loss_input: the rows of the step.
            result: of the loss; gradients by the users' rows are changed in place.

        Returns:
            this worker's items and their gradients, as of `ShardedEmbedding.sum_gradients`.
        """
        settings, rows = self._model.settings, prepared.rows
        share_B = loss_input.weight_B / loss_input.size
        share_U = share_B.new_zeros(len(result.user_UD)).index_add_(0, rows.user_B, share_B)
        share_V = share_B.new_zeros(len(result.item_VD)).index_add_(0, rows.positive_B, share_B)
        implicit.users.add_gradients(rows.local_U, result.user_UD, share_U, settings)
        sent_VD = torch.cat([result.item_VD, share_V[:, None]], 1)
        local_G, sent_GD = self._model.items.embedding.sum_gradients(prepared.route, sent_VD)
        item_GD = sent_GD[:, :-1].contiguous()
        implicit.items.add_gradients(local_G, item_GD, sent_GD[:, -1], settings)
        return local_G, item_GD

    def _prepare(self, first: int) -> None:
        """Find the rows of the next steps, and their routes."""
        number = max(1, _PREPARED_EVENTS // self._runtime.config.batch_size)
        steps = range(first, min(first + number, self._data.plan.steps))
        rows = [self._rows_of(step, self._order.batch(step)) for step in steps]
        routes = self._model.items.embedding.route_lookups([one.item_V for one in rows])
        self._prepared = dict(zip(steps, map(PreparedStep, rows, routes), strict=True))

    def _rows_of(self, step: int, batch_B: Tensor) -> StepRows:
        """The rows of a step: users of this worker, items of any."""
        group, events = self._runtime.group, self._data.taken
        users, items = self._model.users.embedding, self._model.items.embedding
        size = sum(self._data.plan.batch_sizes(step))
        item_B, weight_B = events.item_E.index_select(0, batch_B).long(), events.weight_E[batch_B]
        candidate_K = self.candidates(step, item_B)
        log_expected_K = torch.zeros(len(candidate_K))
        if self._runtime.config.logq and len(candidate_K):
            log_expected_K = self._data.negatives.log_expected(candidate_K, size)
        item_V, index = items.distinct(torch.cat([item_B, candidate_K]))
        user_B = events.user_E.index_select(0, batch_B).long()
        user_B = users.local_index(group.to_device(user_B))
        local_U, user_index_B = torch.unique(user_B, return_inverse=True)
        return StepRows(
            size=size,
            local_U=local_U,
            item_V=group.to_device(item_V),
            user_B=user_index_B,
            positive_B=group.to_device(index[: len(item_B)]),
            negative_K=group.to_device(index[len(item_B) :]),
            log_expected_K=group.to_device(log_expected_K),
            sample_weight_B=group.to_device(self._data.sample_weights.of(weight_B)),
            target_B=group.to_device(weight_B),
        )

    def _look_up(self, prepared: PreparedStep) -> LossInput:
        """The rows of a step with their vectors."""
        rows, scaling = prepared.rows, self._data.l2_scaling
        threshold_L1 = self._model.users.state.get(THRESHOLD)
        return LossInput(
            user_UD=self._model.users.weight.index_select(0, rows.local_U),
            item_VD=self._model.items.embedding.read(prepared.route),
            user_B=rows.user_B,
            positive_B=rows.positive_B,
            negative_K=rows.negative_K,
            log_expected_K=rows.log_expected_K,
            weight_B=rows.sample_weight_B,
            target_B=rows.target_B,
            size=rows.size,
            user_l2_U=scaling.users(rows.local_U),
            item_l2_V=scaling.items(rows.item_V),
            threshold_U=None if threshold_L1 is None else threshold_L1[rows.local_U, 0],
        )

    def _update(
        self, step: int, users: tuple[Tensor, Tensor], items: tuple[Tensor, Tensor]
    ) -> None:
        """Update both tables; each pair holds local rows and their gradients."""
        count, rate = self._first + step + 1, self._learning_rate(step)
        update = OPTIMIZERS[self._runtime.config.optimizer].update
        for table, (local, gradient) in ((self._model.users, users), (self._model.items, items)):
            update(table.weight, table.state, table.columns, Update(local, gradient, rate, count))


@dataclass(frozen=True)
class StepRows:
    """What a step looks up, before any vector is read.

    Args:
        size: events of the global batch, of all workers.
        local_U: distinct users, as positions in this worker's table.
        item_V: distinct items, by row.
        user_B: each event's user, as an index into `local_U`.
        positive_B: each event's item, as an index into `item_V`.
        negative_K: the shared negatives, as indices into `item_V`.
        log_expected_K: logarithm of how often each negative is expected; 0 without `logq`.
        sample_weight_B: how much each event counts.
        target_B: weights of the events: the ratings, where these are learned.
    """

    size: int
    local_U: Tensor
    item_V: Tensor
    user_B: Tensor
    positive_B: Tensor
    negative_K: Tensor
    log_expected_K: Tensor
    sample_weight_B: Tensor
    target_B: Tensor


@dataclass(frozen=True)
class PreparedStep:
    """A step's rows, and the route of its items."""

    rows: StepRows
    route: Route
