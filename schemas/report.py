"""Artifact `report`: the page, and the figures on it."""

from __future__ import annotations

from pydantic import Field

from embedmill.schemas.contract import ArtifactContract, Count, Counters
from embedmill.schemas.evaluate import GateResult, Protocol, Slice
from embedmill.schemas.files import JsonFile, Number, Stored
from embedmill.schemas.index import IndexRecall, IndexSpec
from embedmill.schemas.train import Epoch, Model, Search

__all__ = [
    "CONTRACT",
    "DATA",
    "PAGE",
    "BiasExtremes",
    "BiasedItem",
    "EventsByDay",
    "EventsPerId",
    "FrequentId",
    "IdOverlap",
    "IndexData",
    "Item",
    "ItemMap",
    "ItemWithNeighbours",
    "LogData",
    "LogDistributions",
    "MapPoint",
    "Neighbour",
    "Neighbours",
    "Overlaps",
    "RejectExample",
    "RejectReason",
    "ReportData",
]


class RejectExample(Stored):
    """A rejected line; `raw` is its start as text."""

    file: str
    line: int
    raw: str


class RejectReason(Stored):
    """A reason of rejects: its meaning in words, how many lines have it, the first of them."""

    reason: str
    meaning: str
    count: int
    examples: list[RejectExample]


class EventsByDay(Stored):
    """Events over time.

    `first` and `last` are days (ISO dates) that have events, `days` counts all days between them,
    `empty` those without events. `median` is that of the events of a day, empty days included;
    `most` is the (day, events) with most. `bars` are (first day, events) of `span` days each.
    """

    first: str
    last: str
    days: int
    empty: int
    median: Number
    most: tuple[str, int]
    span: int
    bars: list[tuple[str, int]]


class FrequentId(Stored):
    """A raw id with its events; `title` of an item is null where the log has none."""

    id: str
    events: int
    title: str | None = None


class EventsPerId(Stored):
    """How the events are distributed over the ids of one side.

    `ids` and `events` are totals, `median` is that of the events of an id. `once` counts ids with
    one event, `below` ids with fewer events than `minimum`, the minimum count of the config.
    `shares` are (share of the ids, share of the events of the most frequent ones), `largest` is
    the share of the events of the most frequent id. `octaves` are (least events, ids, events of
    these ids) by powers of two. `curve` has (events, share of the ids with at least as many),
    falling. `heaviest` are the ids with most events.
    """

    ids: int
    events: int
    median: int
    once: int
    minimum: int
    below: int
    shares: list[tuple[Number, Number]]
    largest: Number
    octaves: list[tuple[int, int, int]]
    curve: list[tuple[int, Number]]
    heaviest: list[FrequentId]


class IdOverlap(Stored):
    """Ids of one side in use in the base run and in this one.

    Of those in use `before`, some `stayed` and some are `gone` (retired). Of those in use `now`,
    the others are `new`, or `back` on the rows that were kept for them.
    """

    before: int
    stayed: int
    gone: int
    new: int
    back: int
    now: int


class Overlaps(Stored):
    """Ids in common with the base run, of both sides."""

    users: IdOverlap
    items: IdOverlap


class LogDistributions(Stored):
    """Events over days and ids, and ids in common with the base run.

    `days` is null where the log has no times; `users` and `items` where there is no vocabulary;
    `base_run` where the vocabulary is not incremental.
    """

    days: EventsByDay | None = None
    users: EventsPerId | None = None
    items: EventsPerId | None = None
    base_run: Overlaps | None = None


class LogData(Stored):
    """What the report of a run and the profile of a log have in common.

    `fingerprint` is that of the whole config. `counters` are those of each finished stage.
    """

    run: str
    title: str
    fingerprint: str
    split: str
    counters: dict[str, dict[str, int]]
    rejects: list[RejectReason]
    log: LogDistributions


class Item(Stored):
    """A live item: its row, raw id and events; its title is its id where the log has none."""

    row: int
    id: str
    count: int
    title: str
    categories: list[str]


class Neighbour(Item):
    """An item near another one, with their cosine."""

    cosine: Number


class ItemWithNeighbours(Item):
    """An item and its nearest items by cosine, best first."""

    neighbours: list[Neighbour]


class Neighbours(Stored):
    """Some items with their neighbours, and names of the config that no item has."""

    items: list[ItemWithNeighbours]
    not_found: list[str]


class BiasedItem(Item):
    """An item with what it adds to a predicted rating."""

    bias: Number


class BiasExtremes(Stored):
    """Items of highest and lowest bias among the `items` with at least `least_count` events."""

    least_count: int
    items: int
    best: list[BiasedItem]
    worst: list[BiasedItem]


class MapPoint(Item):
    """An item on the map, x and y from 0 to 1.

    `category` is an index into the categories of the map, 6 where the item has another category
    or none, null where no item has any.
    """

    x: Number
    y: Number
    category: int | None


class ItemMap(Stored):
    """The most frequent items on two principal components.

    `variance` is the share that each component explains. `categories` are those that have a
    colour, most frequent first. `points` are the items, most frequent first.
    """

    variance: tuple[Number, Number]
    categories: list[str]
    points: list[MapPoint]


class IndexData(Stored):
    """What the index is, and its recall."""

    spec: IndexSpec
    recall: IndexRecall


class ReportData(LogData):
    """Everything on the page that depends on the log and the config alone.

    `metrics`, `intervals`, `protocols`, `slices` and `gates` are those of `evaluate`, `ks` the
    values of k that metrics were measured at. `bias` is null for models without biases of ratings,
    `trials` where the config names an objective.
    """

    objective: str
    model: Model
    history: list[Epoch]
    metrics: dict[str, Number]
    protocols: list[Protocol]
    ks: list[int] = Field(min_length=1)
    slices: list[Slice]
    gates: list[GateResult]
    index: IndexData
    neighbours: Neighbours
    bias: BiasExtremes | None
    map: ItemMap
    trials: Search | None = None
    intervals: dict[str, tuple[float, float]] = Field({})


DATA = JsonFile("data.json", ReportData)
# The page, with times and versions: volatile.
PAGE = "index.html"


def _status(c: Counters, n: Count) -> str:
    return PAGE


CONTRACT = ArtifactContract(status=_status)
