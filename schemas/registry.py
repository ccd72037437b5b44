"""The contract of each stage's artifact, by stage."""

from __future__ import annotations

from embedmill.schemas import evaluate, events, export, index, report, shards, train, vocab
from embedmill.schemas.contract import ArtifactContract

__all__ = ["CONTRACTS"]

CONTRACTS: dict[str, ArtifactContract] = {
    "events": events.CONTRACT,
    "vocab": vocab.CONTRACT,
    "shards": shards.CONTRACT,
    "train": train.CONTRACT,
    "export": export.CONTRACT,
    "index": index.CONTRACT,
    "evaluate": evaluate.CONTRACT,
    "report": report.CONTRACT,
}
