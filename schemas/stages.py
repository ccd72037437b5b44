"""The line: eight stages, what each reads, and the version of its contract."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["STAGES", "StageContract"]


@dataclass(frozen=True)
class StageContract:
    """`inputs` are stages to the left; `fields` the config keys that shape the artifact."""

    version: int
    inputs: tuple[str, ...]
    fields: tuple[str, ...]


# In order. A key ends at a section or at a field; fields that only say where or how fast
# something runs (workers, engine, root) are marked in `pipeline.config` and never count.
STAGES: dict[str, StageContract] = {
    "events": StageContract(1, (), ("run.partitions", "events")),
    "vocab": StageContract(2, ("events",), ("run.seed", "events.user", "events.item", "vocab")),
    "shards": StageContract(1, ("events", "vocab"), ("run.partitions", "run.seed", "shards")),
    "train": StageContract(1, ("vocab", "shards"), ("run.partitions", "run.seed", "train")),
    "export": StageContract(2, ("vocab", "train"), ("export",)),
    "index": StageContract(2, ("shards", "export"), ("run.seed", "index")),
    "evaluate": StageContract(1, ("shards", "export", "index"), ("evaluate",)),
    "report": StageContract(
        1,
        ("events", "vocab", "shards", "train", "export", "index", "evaluate"),
        ("report",),
    ),
}
