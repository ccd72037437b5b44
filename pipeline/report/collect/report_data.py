"""Figures of a run, from its manifests and small JSON files.

`gather` gives what depends on the log and the config alone, `times` what depends on the
machine. Absent figures are absent keys: the page says that they were not measured.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.config import Config, stage_fields, to_toml
from embedmill.pipeline.report.collect import distributions
from embedmill.pipeline.report.collect.items import metadata
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.run import Run
from embedmill.schemas.events import REASONS
from embedmill.schemas.manifest import digest
from embedmill.schemas.stages import STAGES

__all__ = ["EXAMPLES", "gather", "log", "of_log", "rejects", "times"]

EXAMPLES = 3  # rejected lines shown per reason
_RAW_BYTES = 400  # of a rejected line
_READ = tuple(stage for stage in STAGES if stage != "report")


def gather(run: Run) -> dict[str, Any]:
    """Everything but the items: counters, rejects, history, metrics, slices, gates, index.

    Raises:
        MissingArtifactError: a stage has not finished.
    """
    art = {stage: run.artifact(stage) for stage in _READ}
    config = run.config
    return {
        **of_log(art, config),
        "title": config.report.title or config.run.name,
        "objective": config.train.objective,
        "model": art["train"].read_json("model.json"),
        "history": art["train"].read_json("history.json"),
        "metrics": art["evaluate"].read_json("metrics.json"),
        "ks": list(config.evaluate.ks),
        "slices": art["evaluate"].read_json("slices.json"),
        "gates": art["evaluate"].read_json("gates.json"),
        "index": {
            "spec": art["index"].read_json("spec.json"),
            "recall": art["index"].read_json("recall.json"),
        },
    }


def of_log(art: Mapping[str, Artifact], config: Config) -> dict[str, Any]:
    """What a run and a look at its log have in common.

    Args:
        art: finished stages, `events` among them.
        config: of the run.
    """
    return {
        "run": config.run.name,
        "fingerprint": digest(stage_fields(config, tuple(type(config).model_fields))),
        "split": config.shards.split,
        "counters": {stage: dict(sorted(one.counters.items())) for stage, one in art.items()},
        "rejects": rejects(art["events"]),
        "log": log(art, config),
    }


def log(art: Mapping[str, Artifact], config: Config) -> dict[str, Any]:
    """How the log's events spread over days and ids, and what is left of the previous run.

    Args:
        art: finished stages; of `events` and `vocab` what is there is told of.
        config: of the run.

    Returns:
        `days` (see `spread.by_day`), `users` and `items` (`spread.over_ids`), and `previous`,
        by "users" and "items": ids `before`, `stayed`, `gone`, `new`, `back`, `now`. A key is
        left out where an older version of this program made the stage, or there is nothing.
    """
    found: dict[str, Any] = {}
    events, vocab = art.get("events"), art.get("vocab")
    if events is not None and events.has("days.json"):
        found["days"] = distributions.by_day(events.read_json("days.json"))
    if vocab is None:
        return found
    minimum = {"users": config.vocab.min_user_count, "items": config.vocab.min_item_count}
    if vocab.has("counts.json"):
        counts = vocab.read_json("counts.json")
        found |= {s: distributions.over_ids(counts[s], least) for s, least in minimum.items()}
        _name(found["items"]["heaviest"], events)
    if vocab.has("previous.json"):
        found["previous"] = {side: _continued(vocab.counters, side) for side in minimum}
    return found


def _name(heaviest: list[dict[str, Any]], events: Artifact | None) -> None:
    """Give items their titles, where the log has any."""
    titles = metadata(events, (one["id"] for one in heaviest)) if events is not None else {}
    for one in heaviest:
        if titles.get(one["id"], ("",))[0]:
            one["title"] = titles[one["id"]][0]


def _continued(counters: Mapping[str, int], side: str) -> dict[str, int]:
    """Ids in use before and now, from the counters of a vocabulary that continues another."""
    now, new, back, gone = (counters[f"{side}_{name}"] for name in ("live", "new", "back", "gone"))
    stayed = now - new - back
    before = stayed + gone
    return {"before": before, "stayed": stayed, "gone": gone, "new": new, "back": back, "now": now}


def times(run: Run) -> dict[str, Any]:
    """Seconds, bytes and versions of each stage, how training spent its time, latencies of the
    index, the config as TOML."""
    stages: list[dict[str, Any]] = []
    software: dict[str, str] = {}
    for stage in _READ:
        manifest = run.artifact(stage).manifest
        size = sum(f.bytes for f in manifest.files)
        stages.append(
            {
                "stage": stage,
                "seconds": manifest.seconds,
                "bytes": size,
                "files": len(manifest.files),
                "content": manifest.content,
                "measured": manifest.measured,
            }
        )
        software |= manifest.software
    index = run.artifact("index")
    return {
        "stages": stages,
        "training": _training(run.artifact("train")),
        "software": dict(sorted(software.items())),
        "latency": index.read_json("latency.json") if index.has("latency.json") else {},
        "index_measured": index.manifest.measured,
        "config": to_toml(run.config),
        "created": run.artifact("evaluate").manifest.created,
    }


def _training(train: Artifact) -> dict[str, Any]:
    """Seconds of training by what they were spent on, the most of them first, and pairs."""
    if not train.has("log.jsonl"):
        return {}
    lines = [json.loads(line) for line in train.read("log.jsonl").splitlines()]
    names = {k for line in lines for k in line if k.startswith("seconds.")}
    spent = {n.removeprefix("seconds."): sum(one.get(n, 0.0) for one in lines) for n in names}
    steps = [line for line in lines if line["kind"] == "steps"]
    return {
        "spent": dict(sorted(spent.items(), key=lambda pair: (-pair[1], pair[0]))),
        "pairs": sum(line["pairs"] for line in steps),
        "seconds": sum(line["seconds"] for line in steps),
        "workers": [line["workers"] for line in lines if line["kind"] == "start"],
    }


def rejects(events: Artifact) -> list[dict[str, Any]]:
    """Reasons by falling count (ties by name), each with its first lines as examples."""
    counts = {
        name.removeprefix("rejected."): count
        for name, count in events.counters.items()
        if name.startswith("rejected.") and count
    }
    examples = _examples(events)
    return [
        {
            "reason": reason,
            "meaning": REASONS.get(reason, ""),
            "count": count,
            "examples": examples.get(reason, []),
        }
        for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def _examples(events: Artifact) -> dict[str, list[dict[str, Any]]]:
    """The first few lines of each reason by (file, line), whatever the files' order."""
    kept: dict[str, list[tuple[str, int, bytes]]] = {}
    for path in [entry.path for entry in events.files("rejects") if entry.rows]:
        for batch in events.batches(path):
            for reason, lines in _first(pa.Table.from_batches([batch])):
                kept[reason] = heapq.nsmallest(EXAMPLES, [*kept.get(reason, []), *lines])
    return {
        reason: [
            {"file": PurePosixPath(file).name, "line": line, "raw": _readable(raw)}
            for file, line, raw in lines
        ]
        for reason, lines in kept.items()
    }


def _first(rejects: pa.Table) -> Iterator[tuple[str, list[tuple[str, int, bytes]]]]:
    """The first few lines of each reason in some rejects; there may be millions in all."""
    places = rejects.select(["file", "line", "reason"])
    places = places.append_column("at", pa.array(range(rejects.num_rows), pa.int64()))
    order = [("file", "ascending"), ("line", "ascending")]
    for reason in places["reason"].unique().to_pylist():
        own = places.filter(pc.equal(places["reason"], reason))
        at = own["at"].take(pc.select_k_unstable(own, EXAMPLES, order))
        rows = rejects.take(at).to_pylist()
        yield reason, [(row["file"], row["line"], row["raw"]) for row in rows]


def _readable(raw: bytes) -> str:
    """Bytes of a line as text; what is not UTF-8 shows as \\xNN."""
    text = raw[:_RAW_BYTES].decode("utf-8", errors="backslashreplace")
    return text + ("…" if len(raw) > _RAW_BYTES else "")
