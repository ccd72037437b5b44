"""Checkpoints of a training that has not finished, below the folder of its artifact.

They are no part of the artifact: its manifest does not name them, and they are removed when it is
written.

    checkpoints/trials.json                   finished trials of objective `auto`
    checkpoints/latest.json                   which slots are valid
    checkpoints/<slot>/manifest.json          cursor, history, sha256 of each part
    checkpoints/<slot>/part-PPPPP.safetensors rows and optimizer state of partition P

Trials of `embedmill tune` belong to no artifact, and stay: `tune/trials.json` of the run.
"""

from __future__ import annotations

from typing import Any

from embedmill.schemas.files import JsonFile, Number, PartFiles, Stored
from embedmill.schemas.train import Trial

__all__ = [
    "FOLDER",
    "FORMAT",
    "POINTER",
    "TRIALS",
    "TUNE",
    "CheckpointManifest",
    "Pointer",
    "StoredCursor",
    "StoredIdentity",
    "StoredSearch",
    "manifest_of",
    "parts_of",
]

FORMAT = 1
FOLDER = "checkpoints"


class StoredIdentity(Stored):
    """What a training is made from: fingerprint and fields of its config, content of its inputs."""

    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]


class StoredCursor(Stored):
    """How far a training is: finished epochs, and finished steps of the next one.

    `loss` is the sum of the losses of these steps, each times the size of its batch. `history` has
    an entry for each finished epoch. `best_epoch` counts from 1, 0: none yet; `best_slot` has its
    checkpoint. In a refit, `refit` has the train loss of each of its epochs; before it, null.
    """

    epoch: int
    step: int
    loss: Number
    history: list[dict[str, Number]]
    best_epoch: int
    best_slot: str
    refit: list[Number] | None


class CheckpointManifest(Stored):
    """A checkpoint; `files` has the sha256 of each part by its path."""

    format: int
    partitions: int
    identity: StoredIdentity
    cursor: StoredCursor
    files: dict[str, str]


class Pointer(Stored):
    """The latest checkpoint, and those that a next one replaces.

    `sha256` is that of the latest slot's manifest; `best` is the slot of the best epoch.
    """

    slot: str
    best: str
    sha256: str
    superseded: list[str]
    partitions: int


class StoredSearch(Stored):
    """Finished trials of the training with this fingerprint."""

    fingerprint: str
    trials: tuple[Trial, ...]


TRIALS = JsonFile(f"{FOLDER}/trials.json", StoredSearch)
# Below the folder of the run.
TUNE = JsonFile("tune/trials.json", StoredSearch)
POINTER = JsonFile(f"{FOLDER}/latest.json", Pointer)


def manifest_of(slot: str) -> JsonFile[CheckpointManifest]:
    """The manifest of a slot."""
    return JsonFile(f"{FOLDER}/{slot}/manifest.json", CheckpointManifest)


def parts_of(slot: str) -> PartFiles:
    """The files of a slot: file p has partition p."""
    return PartFiles(f"{FOLDER}/{slot}", suffix="safetensors")
