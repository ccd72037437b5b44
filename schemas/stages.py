"""The line: eight stages, what each reads, and the version of its contract."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["STAGES", "StageContract"]


@dataclass(frozen=True)
class StageContract:
    """`inputs` are stages to the left; `fields` the config keys that shape the artifact.

    `rows` are the counters that add up to the rows it works through, for its speed; none where
    it may go on from work of an earlier attempt.
    """

    version: int
    inputs: tuple[str, ...]
    fields: tuple[str, ...]
    rows: tuple[str, ...] = ()


# In order. A key ends at a section or at a field; fields that only say where or how fast
# something runs (workers, engine, root) are marked in `embedmill.pipeline.config` and never count.
STAGES: dict[str, StageContract] = {
    "events": StageContract(1, (), ("run.partitions", "events"), ("rows_in",)),
    "vocab": StageContract(
        2, ("events",), ("run.seed", "events.user", "events.item", "vocab"), ("events_in",)
    ),
    "shards": StageContract(
        1, ("events", "vocab"), ("run.partitions", "run.seed", "shards"), ("events_in",)
    ),
    "train": StageContract(1, ("vocab", "shards"), ("run.partitions", "run.seed", "train")),
    "export": StageContract(2, ("vocab", "train"), ("export",), ("users", "items")),
    "index": StageContract(6, ("shards", "export"), ("run.seed", "index"), ("items_in",)),
    "evaluate": StageContract(1, ("shards", "export", "index"), ("evaluate",), ("users",)),
    "report": StageContract(
        2,
        ("events", "vocab", "shards", "train", "export", "index", "evaluate"),
        ("report",),
    ),
}
