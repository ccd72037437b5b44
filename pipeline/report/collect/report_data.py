"""The figures on the page, from the artifacts of a run.

They depend on the log and the config alone; what depends on the machine is in `timings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from embedmill.pipeline.config import Config, stage_fields
from embedmill.pipeline.report.collect.distributions import events_by_day, events_per_id
from embedmill.pipeline.report.collect.item_biases import extreme_biases
from embedmill.pipeline.report.collect.item_vectors import open_items
from embedmill.pipeline.report.collect.nearest_items import nearest_items
from embedmill.pipeline.report.collect.projection import project
from embedmill.pipeline.report.collect.rejects import rejected_lines
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.evaluate import Evaluation
from embedmill.pipeline.views.events import Events
from embedmill.pipeline.views.index import StoredIndex
from embedmill.pipeline.views.train import Training
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas.manifest import digest
from embedmill.schemas.report import (
    EventsPerId,
    FrequentId,
    IdOverlap,
    IndexData,
    LogData,
    LogDistributions,
    Overlaps,
    ReportData,
)
from embedmill.schemas.stages import STAGES

__all__ = ["collect_log", "collect_run"]

Artifacts = Mapping[str, Artifact]  # by stage


def collect_run(run: Run, progress: Callable[[int], None] = lambda _: None) -> ReportData:
    """The figures of a run whose stages before `report` have finished.

    Args:
        run: the run.
        progress: called with the number of parts collected, of three.

    Raises:
        MissingArtifactError: a stage before `report` has not finished.
        CorruptArtifactError: a file differs from its manifest.
    """
    artifacts = {stage: run.artifact(stage) for stage in STAGES if stage != "report"}
    config = run.config
    training, index = Training(artifacts["train"]), StoredIndex(artifacts["index"])
    evaluation = Evaluation(artifacts["evaluate"])
    log = collect_log(artifacts, config, config.report.title or config.run.name)
    progress(1)
    items = open_items(run)
    neighbours = nearest_items(items, config.report.neighbours_of)
    bias = extreme_biases(items)
    progress(2)
    item_map = project(items, config.report.map_items)
    progress(3)
    return ReportData(
        **dict(log),
        objective=training.model.objective,
        trials=training.search,
        model=training.model,
        history=training.history,
        metrics=evaluation.metrics,
        protocols=evaluation.protocols,
        intervals=evaluation.intervals,
        ks=list(config.evaluate.ks),
        slices=evaluation.slices,
        gates=evaluation.gates,
        index=IndexData(spec=index.spec, recall=index.recall),
        neighbours=neighbours,
        bias=bias,
        map=item_map,
    )


def collect_log(artifacts: Artifacts, config: Config, title: str) -> LogData:
    """What the report of a run and the profile of a log have in common.

    Args:
        artifacts: finished stages by name, `events` among them.
        config: of the run.
        title: of the page.
    """
    return LogData(
        run=config.run.name,
        title=title,
        fingerprint=digest(stage_fields(config, tuple(type(config).model_fields))),
        split=config.shards.split,
        counters={stage: dict(sorted(a.counters.items())) for stage, a in artifacts.items()},
        rejects=rejected_lines(Events(artifacts["events"])),
        log=_distributions(artifacts, config),
    )


def _distributions(artifacts: Artifacts, config: Config) -> LogDistributions:
    """Events over days and over ids, and ids in common with the base vocabulary.

    What comes from `vocab` is None where that stage has not finished, or where an older version
    of this program wrote it.
    """
    events = Events(artifacts["events"])
    days = events_by_day(events.days() or [])
    if "vocab" not in artifacts:
        return LogDistributions(days=days)
    vocab = Vocab(artifacts["vocab"])
    users = items = base_run = None
    counts = vocab.counts()
    if counts is not None:
        minimum = (config.vocab.min_user_count, config.vocab.min_item_count)
        users = events_per_id(counts.users.counts, counts.users.heaviest, minimum[0])
        items = events_per_id(counts.items.counts, counts.items.heaviest, minimum[1])
        items = _with_titles(items, events)
    if vocab.base_run() is not None:
        counters = vocab.artifact.counters
        base_run = Overlaps(users=_overlap(counters, "users"), items=_overlap(counters, "items"))
    return LogDistributions(days=days, users=users, items=items, base_run=base_run)


def _with_titles(items: EventsPerId, events: Events) -> EventsPerId:
    """The same, the most frequent items with their titles where the log has any."""
    titles = events.items.titles(item.id for item in items.heaviest)
    heaviest = [
        FrequentId(id=item.id, events=item.events, title=titles.get(item.id) or None)
        for item in items.heaviest
    ]
    return items.model_copy(update={"heaviest": heaviest})


def _overlap(counters: Mapping[str, int], side: str) -> IdOverlap:
    """Ids in use before and now, from the counters of a vocabulary that continues another."""
    now, new, back, gone = (counters[f"{side}_{name}"] for name in ("live", "new", "back", "gone"))
    stayed = now - new - back
    return IdOverlap(before=stayed + gone, stayed=stayed, gone=gone, new=new, back=back, now=now)
