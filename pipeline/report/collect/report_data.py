"""What the report says of a run, from its manifests and small JSON files.

It depends on the log and the config alone: times are in `timings`. What was not measured has no
key, and the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedmill.pipeline.config import Config, stage_fields
from embedmill.pipeline.report.collect.distributions import events_by_day, events_per_id
from embedmill.pipeline.report.collect.rejects import rejected_lines
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.views.items import ItemMetadata
from embedmill.schemas.evaluate import GATES, METRICS, SLICES
from embedmill.schemas.events import DAYS
from embedmill.schemas.index import RECALL, SPEC
from embedmill.schemas.manifest import digest
from embedmill.schemas.stages import STAGES
from embedmill.schemas.train import HISTORY, MODEL
from embedmill.schemas.vocab import BASE, COUNTS

__all__ = ["collect_log", "collect_run"]

Artifacts = Mapping[str, Artifact]  # by stage


def collect_run(run: Run) -> dict[str, Any]:
    """All of a run but its items: counters, rejects, history, metrics, slices, gates, index.

    Raises:
        MissingArtifactError: a stage before `report` has not finished.
    """
    artifacts = {stage: run.artifact(stage) for stage in STAGES if stage != "report"}
    train, evaluate, index = (artifacts[stage] for stage in ("train", "evaluate", "index"))
    config = run.config
    return {
        **collect_log(artifacts, config),
        "title": config.report.title or config.run.name,
        "objective": config.train.objective,
        "model": train.read_json(MODEL).as_json(),
        "history": [epoch.as_json() for epoch in train.read_json(HISTORY)],
        "metrics": evaluate.read_json(METRICS),
        "ks": list(config.evaluate.ks),
        "slices": [one.as_json() for one in evaluate.read_json(SLICES)],
        "gates": [gate.as_json() for gate in evaluate.read_json(GATES)],
        "index": {
            "spec": index.read_json(SPEC).as_json(),
            "recall": index.read_json(RECALL).as_json(),
        },
    }


def collect_log(artifacts: Artifacts, config: Config) -> dict[str, Any]:
    """What the report of a run and the profile of a log have in common.

    Args:
        artifacts: finished stages by name, `events` among them.
        config: of the run.
    """
    return {
        "run": config.run.name,
        "fingerprint": digest(stage_fields(config, tuple(type(config).model_fields))),
        "split": config.shards.split,
        "counters": {stage: dict(sorted(a.counters.items())) for stage, a in artifacts.items()},
        "rejects": rejected_lines(artifacts["events"]),
        "log": _distributions(artifacts, config),
    }


def _distributions(artifacts: Artifacts, config: Config) -> dict[str, Any]:
    """Events over days and over ids, and ids in common with the base vocabulary.

    Returns:
        `days` (see `events_by_day`), `users` and `items` (`events_per_id`), and `previous`, by
        "users" and "items": ids `before`, `stayed`, `gone`, `new`, `back`, `now`. A key is
        missing where its stage is, or where an older version of this program wrote the stage.
    """
    log: dict[str, Any] = {}
    events, vocab = artifacts["events"], artifacts.get("vocab")
    if events.has(DAYS.path):
        days = events.read_json(DAYS)
        log["days"] = events_by_day(days)
    if vocab is None:
        return log
    minimum = {"users": config.vocab.min_user_count, "items": config.vocab.min_item_count}
    if vocab.has(COUNTS.path):
        counts = vocab.read_json(COUNTS)
        for side, histogram in (("users", counts.users), ("items", counts.items)):
            log[side] = events_per_id(histogram.counts, histogram.heaviest, minimum[side])
        _add_titles(log["items"]["heaviest"], events)
    if vocab.has(BASE.path):
        log["previous"] = {side: _overlap(vocab.counters, side) for side in minimum}
    return log


def _add_titles(items: list[dict[str, Any]], events: Artifact) -> None:
    """Give items their titles, where the log has any."""
    titles = ItemMetadata(events).titles(item["id"] for item in items)
    for item in items:
        if titles.get(item["id"]):
            item["title"] = titles[item["id"]]


def _overlap(counters: Mapping[str, int], side: str) -> dict[str, int]:
    """Ids in use before and now, from the counters of a vocabulary that continues another."""
    now, new, back, gone = (counters[f"{side}_{name}"] for name in ("live", "new", "back", "gone"))
    stayed = now - new - back
    before = stayed + gone
    return {"before": before, "stayed": stayed, "gone": gone, "new": new, "back": back, "now": now}
