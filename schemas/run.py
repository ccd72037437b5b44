"""Files of a run beside its artifacts, and of the folder that runs lie in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedmill.schemas.evaluate import GateResult
from embedmill.schemas.files import JsonFile, Number, Stored

__all__ = [
    "CONFIG",
    "FENCE",
    "LEASES",
    "MANIFEST",
    "PUBLISHED",
    "SIGNATURE",
    "STATE",
    "BackfillResult",
    "Failure",
    "Fence",
    "Lease",
    "Published",
    "RunResult",
    "RunState",
    "RunSummary",
    "Signature",
    "StageResult",
    "lease_of",
    "publication",
]

# Written last in the folder of an artifact: see `embedmill.schemas.manifest`.
MANIFEST = "manifest.json"
# The run's resolved config.
CONFIG = "config.json"


class Published(Stored):
    """A publication: the run that was made the one to read.

    `run` is its name. `base_run` is the folder of the run whose vocabulary it continues, absent
    where it began one. `content` is the hash of `stages`, the content hashes of its artifacts by
    stage. `published` is when it was published (ISO 8601, UTC). `date` is the day or time that the
    run is for, absent where it has none. `number` counts the publications below a root, absent in
    what older versions wrote. A rollback has in `returns_to` the number of the publication that
    it makes valid again.
    """

    format: Literal[1] = 1
    run: str
    base_run: str | None = Field(
        default=None, alias="continues", exclude_if=lambda value: value is None
    )
    content: str
    stages: dict[str, str]
    published: str
    date: str = Field(default="", exclude_if=lambda value: not value)
    number: int = Field(default=0, ge=0, exclude_if=lambda value: not value)
    returns_to: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)


# In the folder of all runs: which of them was published last.
PUBLISHED = JsonFile("published.json", Published)


class Lease(Stored):
    """Who runs a run: the file `lease/NNNNNN.json` of its folder, created once for each number.

    Only its owner writes it again: at each heartbeat, and with `released` when it ends.

    Attributes:
        fence: its number; the owner with the greatest one is the driver.
        token: drawn at random, to tell two owners apart on a store on which both could create it.
        host: name of the owner's machine.
        machine: boot and process namespace, in which `pid` and `started` name one process.
        pid: of the owner.
        started: when the owner's process started (clock ticks since boot); empty where not known.
        since: when it was taken (ISO 8601, UTC).
        beat: when the owner was last alive (seconds since 1970, by its own clock).
        released: whether the owner has ended by itself.
        outlived: whether tasks of the owner may outlive its process: they run on a cluster.
        own_folders: whether stages are written to folders of this number, because an earlier owner
            or its tasks may still write to the usual ones.
    """

    format: Literal[1] = 1
    fence: int = Field(ge=1)
    token: str
    host: str
    machine: str
    pid: int
    started: str
    since: str
    beat: float
    released: bool = False
    outlived: bool = False
    own_folders: bool = False


class Fence(Stored):
    """The number of the lease that counts; whoever has a smaller one may commit nothing.

    `own_folders` is that of the lease. `exclusive` says whether the store was seen to refuse the
    second of two writers of a new file.
    """

    format: Literal[1] = 1
    fence: int = Field(ge=0)
    own_folders: bool = False
    exclusive: bool = True


# In the folder of a run.
LEASES = "lease"
FENCE = JsonFile(f"{LEASES}/fence.json", Fence)


def lease_of(fence: int) -> JsonFile[Lease]:
    """The lease of this number, in the folder of a run."""
    return JsonFile(f"{LEASES}/{fence:06d}.json", Lease)


def publication(number: int) -> JsonFile[Published]:
    """One of the publications below a root, counted from 1; no run has a name with `_` in front."""
    return JsonFile(f"_published/{number:06d}.json", Published)


class Signature(Stored):
    """A signature over a finished run.

    Attributes:
        key: the public key, Ed25519, 32 bytes in hex.
        signed: when (ISO 8601, UTC); this is not signed.
        files: sha256 of the config and of the manifests of all stages, by path.
        signature: 64 bytes in hex, over the run's name and `files`.
    """

    format: Literal[1] = 1
    key: str
    signed: str
    files: dict[str, str]
    signature: str


# In the folder of a run.
SIGNATURE = JsonFile("signature.json", Signature)


class Failure(Stored):
    """Why a run ended: an error by the name of its class, and what to do.

    `stage` is the one that failed, null before and after all stages. `exit_code` is that of the
    command. `retry` says whether the same command may succeed without any change.
    """

    stage: str | None
    error: str
    what: str
    where: str
    todo: str
    exit_code: int
    retry: bool


class RunState(Stored):
    """What a run's driver did last.

    `stage` is the one that is being built or that failed, null where all that was asked is done.
    `updated` is when this was written: for a stage that is being built, when it began (ISO 8601,
    UTC). `host`, `machine`, `pid` and `started` name its process, as in a `Lease`. "killed"
    is never written: readers say it of a driver whose process is gone.
    """

    format: Literal[1] = 1
    state: Literal["running", "done", "failed", "stopped", "killed"]
    stage: str | None
    updated: str
    host: str
    machine: str
    pid: int
    started: str
    failure: Failure | None = None


# In the folder of a run. A driver that was killed leaves it at "running": see `store.run_state`.
STATE = JsonFile("state.json", RunState, volatile=True)


class StageResult(Stored):
    """A stage that is finished: whether this command built it, and what it made.

    `content` is its content hash, `uri` its folder, `seconds` how long it took when it was built.
    """

    stage: str
    state: Literal["built", "up to date"]
    content: str
    uri: str
    counters: dict[str, int]
    seconds: float


class RunResult(Stored):
    """What a command did: the JSON object on the last line of `run --json` and of job files.

    `state` is that of the command. `published` says whether the run is the published one now, and
    `not_published` why it is not. `gates` and `metrics` are there once stage evaluate has been
    brought up to date. `run` and `uri` are null where the config could not be read.
    """

    format: Literal[1] = 1
    run: str | None
    uri: str | None
    vars: dict[str, str]
    state: Literal["done", "failed", "stopped"]
    exit_code: int
    stages: list[StageResult]
    published: bool
    not_published: str
    gates: list[GateResult]
    metrics: dict[str, Number]
    seconds: float
    failure: Failure | None


class BackfillResult(Stored):
    """What `backfill --json` did: a result for each day, and why it ended before the last one."""

    format: Literal[1] = 1
    state: Literal["done", "failed", "stopped"]
    exit_code: int
    days: dict[str, RunResult]
    failure: Failure | None


class RunSummary(Stored):
    """A run below a root, as `list` shows it.

    `date` is the day or time that it is for, "" for none. `state` is "done" where all stages have
    finished, else that of its driver, else "unfinished". `stages` counts finished ones. `finished`
    is when the last of them was (ISO 8601, UTC). `failed_gates` are names of metrics.
    """

    run: str
    uri: str
    date: str
    state: str
    stages: int
    finished: str
    published: bool
    failed_gates: list[str]
    metrics: dict[str, Number]
