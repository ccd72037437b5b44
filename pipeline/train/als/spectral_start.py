"""Tables that iALS begins with: the vectors of objective spectral, in iALS's scale.

One sweep from them comes as far as three from random values.

Legend: L rows of this worker, M events taken together.
"""

from __future__ import annotations

import torch

from embedmill.pipeline.config import SpectralConfig
from embedmill.pipeline.train.closed_form.subspace import SubspaceIteration
from embedmill.pipeline.train.graph.event_graph import EventGraph, row_blocks

__all__ = ["START_PASSES", "scale_to_events", "set_spectral_factors"]

START_PASSES = 3  # more make no difference after a sweep
_SCORE = 0.5  # about what iALS's scores of events are on average, since they are shrunk


def set_spectral_factors(graph: EventGraph, *, seed: int, scale: float) -> None:
    """Replace the normal initial vectors of both tables; a collective.

    Args:
        graph: the events, not scaled, and both tables, from whose items the iteration begins.
        seed: not used: the normal values are there.
        scale: not used: see `scale_to_events`.
    """
    spectral = SpectralConfig(passes=START_PASSES)
    take = SubspaceIteration(graph, spectral).start_epoch(0, lambda step: 0.0)
    for step in range(START_PASSES):
        take(step)
    scale_to_events(graph, spectral)


def scale_to_events(graph: EventGraph, spectral: SpectralConfig) -> None:
    """Scale vectors of spectral so that events have scores of about 1/2; a collective.

    Squared lengths become the same on both sides, on average over the events: where iALS
    converges, both sides have the same share of the L2.

    A user's vector u is the sum over its events of w d^-a e^-(b + q) times the item's vector: with
    these weights, the events' scores add up to the sum of |u|^2, and no score is computed.

    Args:
        graph: the events, not scaled, and both tables.
        spectral: what the vectors were made with.
    """
    tables, degrees = (graph.users, graph.items), (graph.user_L, graph.own_items(graph.item_I))
    lengths = [table.weight.detach()[:, : graph.dim].square().sum(1).double() for table in tables]
    weighted = graph.scaled(spectral.user_power, spectral.item_power + spectral.popularity_power)
    weight = lengths[0].new_zeros(())
    for first, last in row_blocks(graph.items.rows):
        for _, _, weight_M in weighted.edges(first, last):
            weight += weight_M.double().sum()
    sums = [lengths[0].sum(), weight]
    sums += [
        degree_L.double() @ square_L for degree_L, square_L in zip(degrees, lengths, strict=True)
    ]
    score, weight, user_square, item_square = graph.group.sum(torch.stack(sums)).tolist()
    if min(score, user_square, item_square) <= 0:  # no events
        return
    factor, balance = _SCORE * weight / score, (item_square / user_square) ** 0.5
    for table, square in zip(tables, (factor * balance, factor / balance), strict=True):
        table.weight.detach()[:, : graph.dim].mul_(square**0.5)
