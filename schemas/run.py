"""Files of a run beside its artifacts, and of the folder that runs lie in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedmill.schemas.files import JsonFile, Stored

__all__ = ["CONFIG", "FENCE", "MANIFEST", "PUBLISHED", "Fence", "Lease", "Published", "lease_of"]

# Written last in the folder of an artifact: see `embedmill.schemas.manifest`.
MANIFEST = "manifest.json"
# The run's resolved config.
CONFIG = "config.json"


class Published(Stored):
    """The run that passed its gates last.

    `run` is its name. `base_run` is the folder of the run whose vocabulary it continues, absent
    where it began one. `content` is the hash of `stages`, the content hashes of its artifacts by
    stage. `published` is when it was published (ISO 8601, UTC).
    """

    format: Literal[1] = 1
    run: str
    base_run: str | None = Field(
        default=None, alias="continues", exclude_if=lambda value: value is None
    )
    content: str
    stages: dict[str, str]
    published: str


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
FENCE = JsonFile("lease/fence.json", Fence)


def lease_of(fence: int) -> JsonFile[Lease]:
    """The lease of this number, in the folder of a run."""
    return JsonFile(f"lease/{fence:06d}.json", Lease)
