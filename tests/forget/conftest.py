"""Nights whose logs have canaries: users whose ids occur nowhere by chance."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.jobs import export as export_job
from embedmill.jobs import index as index_job
from embedmill.jobs.all import run_line
from embedmill.pipeline.config import parse
from embedmill.pipeline.formats import FORMATS, ExportOptions, write
from embedmill.pipeline.formats.deltas import write_delta
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.parquet import parquet_bytes
from embedmill.pipeline.store.run import Run, open_run, save_config
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.events import DATA, EVENTS
from embedmill.schemas.manifest import FileEntry, Manifest
from embedmill.schemas.run import MANIFEST
from embedmill.schemas.vocab import SPEC
from tests.support.artifacts import reseal
from tests.support.runs import clusters
from tests.support.worlds import PlantedWorld, config_tree, laid

Row = tuple[str, str, int, float]
CANARY = "canary-000000001"
FORMS = ("tsv", "parquet", "jsonl")


def canaries(count: int) -> list[str]:
    """Ids with characters that JSON and HTML escape."""
    return [f'canary "{n:02d}" é&{random.Random(n).randrange(10**9):09d}' for n in range(count)]


@dataclass
class Nights:
    """Runs below a root, one for each night, over a log that grows."""

    root: Path
    canaries: list[str]
    forms: tuple[str, ...] = FORMS

    @property
    def log(self) -> Path:
        return self.root.parent / "log"

    def rows(self, night: int) -> list[Row]:
        """Events of a night: a planted world's, and some of each canary."""
        world = PlantedWorld(users=40, items=24, seed=night)
        draw = random.Random(night)
        found = list(world.events())
        for name in self.canaries:
            items = draw.sample(range(24), 5)
            found += [(name, f"i{i}", 1_577_900_000 + i, 4.0) for i in items]
        return found

    def write(self, night: int) -> None:
        """The log of a night, with a line that is rejected for each canary."""
        self.log.mkdir(exist_ok=True)
        form = self.forms[night % len(self.forms)]
        path, rows = self.log / f"n{night}.{form}", self.rows(night)
        if form == "tsv":
            lines = ["user_id\titem_id\ttime\trating"]
            lines += ["\t".join(map(str, row)) for row in rows]
            lines += [f"{name}\ti1\tnever\t1.0" for name in self.canaries]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif form == "jsonl":
            names = ("user_id", "item_id", "time", "rating")
            lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
            lines += [json.dumps(dict.fromkeys(names, name)) for name in self.canaries]
            lines += [f'{{"user_id": {json.dumps(name)}, broken' for name in self.canaries]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            columns = dict(
                zip(("user_id", "item_id", "time", "rating"), zip(*rows, strict=True), strict=True)
            )
            pq.write_table(pa.table(columns), path)

    def run(self, night: int, **sections: Any) -> Run:
        """Write the log of a night and run it, on the nights before it."""
        form = self.forms[night % len(self.forms)]
        path = self.log / f"n{night}.{form}"
        if not path.exists():
            self.write(night)
        tree = laid(
            config_tree(self.root, path, f"n{night}"),
            events={"max_rejects": 0.9, "format": form},
            vocab={"previous": "published", "min_item_count": 1, "oov_rows": 2},
            train={"objective": "spectral", "start": "published", "start_fallback": "cold"},
            export={"npy": True, "align_limit": 1.0},
            evaluate={"keep_users": True},
            index={"kind": "flat"},
        )
        run = Run(parse(laid(tree, **sections)))
        run_line(run, terminal=Terminal(quiet=True))
        return open_run(run.storage.root)

    def add_exports(self, run: Run, formats: tuple[str, ...] = tuple(FORMATS)) -> None:
        for name in formats:
            options = ExportOptions(name, FORMATS[name].dtypes[-1])
            write(run, options, str(self.root / "exports" / name), Quiet())

    def add_delta(self, run: Run, base: Run) -> None:
        write_delta(run, base, [], str(self.root / "deltas" / "1"))


def small_run(root: str, name: str, continues: str = "") -> Run:
    """A run up to `index`, written from arrays, whose events name its users; u3 is a canary."""
    contents = clusters(users=24, items=12, clusters=3, dim=4)
    users = [CANARY if user == "u3" else user for user in contents.users]
    contents = dataclasses.replace(contents, users=users, continues=continues)
    sections = {"run": {"name": name, "partitions": 3}, "index": {"kind": "flat"}}
    whole = contents.store(root, **sections)
    pairs = [pair for split in contents.splits.values() for pair in split]
    columns = {
        "user": [users[user] for user, _, _ in pairs],
        "item": [contents.items[item] for _, item, _ in pairs],
        "time": pa.nulls(len(pairs), pa.int64()),
        "weight": [weight for _, _, weight in pairs],
        "split": pa.nulls(len(pairs), pa.string()),
    }
    data = parquet_bytes(pa.table(columns, schema=EVENTS))
    whole.storage.at("events").write(DATA.path(0), data)
    reseal(whole.artifact("events"), DATA.path(0))
    spec = {"columns": {"user": "user_id", "item": "item_id"}, "seed": 0}
    sides = {side: {"total": len(ids), "shared_from": 0, "shared": 0}
             for side, ids in (("users", users), ("items", contents.items))}  # fmt: skip
    add_file(whole.artifact("vocab"), SPEC.path, json.dumps({**spec, **sides}).encode())
    for stage in ("shards", "train"):
        rewire(whole, stage)
    for stage, job in (("export", export_job), ("index", index_job)):
        job.build(whole, whole.writer(stage), Quiet())
    save_config(whole)
    return whole


def add_file(artifact: Artifact, path: str, data: bytes) -> None:
    """Add a file to a finished artifact."""
    artifact.storage.write(path, data)
    entry = FileEntry(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    manifest = artifact.manifest
    files = [*manifest.files, entry]
    content = Manifest.content_hash(manifest.contract, manifest.version, files, manifest.counters)
    _store(artifact, manifest.model_copy(update={"files": files, "content": content}))


def rewire(run: Run, stage: str) -> None:
    """Let the manifest of a stage name its inputs as they are now."""
    artifact, writer = run.artifact(stage), run.writer(stage)
    update = {"inputs": writer.inputs, "fingerprint": writer.fingerprint}
    _store(artifact, artifact.manifest.model_copy(update=update))


def _store(artifact: Artifact, manifest: Manifest) -> None:
    artifact.storage.write(MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
