"""One driver for each run: leases with a number, a heartbeat and an owner.

Leases lie in the run's folder, `lease/NNNNNN.json`. A new number can be created by one process
only (put-if-absent), and only after the owner of the number before it has released it or is gone.
An owner of this machine is gone when its process is: by id and start time. Of an owner elsewhere
only the heartbeat is seen. It may just be slow, and so may tasks of a cluster that outlive their
driver: whoever takes over from these writes stages to folders of its own number, so that nobody
writes a file that a manifest names.

`lease/fence.json` has the number that counts. It is compared right before a manifest is written:
an owner that was stopped and wakes up after another one took over commits nothing. (The idea of a
fencing token: Kleppmann, How to do distributed locking, 2016; Gray and Cheriton, Leases, 1989.)
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from embedmill.pipeline.errors import EmbedmillError, InUseError
from embedmill.pipeline.store.process import is_running, machine, started_at
from embedmill.pipeline.store.storage import ExistsError, Storage
from embedmill.pipeline.store.stored_json import read_stored
from embedmill.schemas.run import FENCE, Fence, Lease, lease_of

__all__ = ["Driver", "FenceCheck", "current_driver", "drive"]

BEAT = 15.0  # seconds between two heartbeats
STALE = 90.0  # seconds without one after which an owner elsewhere may be gone
WATCHED = 20.0  # seconds in which a heartbeat must come if clocks differ
SETTLED = 2.0  # seconds in which a rival shows on a store that ignores put-if-absent
_TODO = "Wait for it to end, or stop it; or give this run another run.name"
_DAMAGED = "If nothing runs this run, remove the folder 'lease' and run again"


@dataclass(frozen=True)
class FenceCheck:
    """The number under which a process works on a run; it is sent to workers of other processes."""

    storage: Storage
    fence: int

    def check(self) -> None:
        """Raise InUseError where another process has taken the run over."""
        now = read_stored(self.storage, FENCE, _DAMAGED)
        if now is None or now.fence == self.fence:
            return
        owner = read_stored(self.storage, lease_of(now.fence), _DAMAGED)
        by = f"by {_named(owner)}" if owner else "by another process"
        raise InUseError(
            f"this process was taken for gone, and the run was taken over {by}; nothing was "
            "committed",
            where=self.storage.root,
            todo="Leave it to the other process",
        )


@dataclass
class Driver:
    """This process as the driver of a run.

    Attributes:
        storage: the run's folder.
        lease: as it was taken.
        exclusive: whether the store refuses the second of two writers of a new file.
    """

    storage: Storage
    lease: Lease
    exclusive: bool
    thread: int = field(default_factory=threading.get_ident)
    _ended: threading.Event = field(default_factory=threading.Event)
    # A heartbeat that is being written would undo a release beside it.
    _writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def fence(self) -> FenceCheck:
        """What its workers check before they replace a file."""
        return FenceCheck(self.storage, self.lease.fence)

    @property
    def folder(self) -> str:
        """Where stages are written, below their folders; empty for these themselves."""
        return f"attempt-{self.lease.fence}" if self.lease.own_folders else ""

    def folders(self) -> list[str]:
        """As `folder`, of this and of earlier numbers, the latest first; the last one is empty."""
        own = range(self.lease.fence, 0, -1) if self.lease.own_folders else []
        return [*(f"attempt-{fence}" for fence in own), ""]

    def beat(self) -> None:
        """Write a heartbeat every `BEAT` seconds, until the lease is released."""
        while not self._ended.wait(BEAT):
            # One that fails is no more than late; after several, the fence tells.
            with contextlib.suppress(EmbedmillError, OSError), self._writing:
                if not self._ended.is_set():
                    self._write(released=False)

    def release(self) -> None:
        """End the lease, so that the next process need not find out whether this one is gone."""
        self._ended.set()
        with contextlib.suppress(EmbedmillError, OSError), self._writing:
            self._write(released=True)

    def _write(self, *, released: bool) -> None:
        now = self.lease.model_copy(update={"beat": time.time(), "released": released})
        file = lease_of(self.lease.fence)
        self.storage.write(file.path, file.encode(now))


_drivers: dict[str, Driver] = {}
_lock = threading.Lock()


def current_driver(storage: Storage) -> Driver | None:
    """This process as the driver of the run in a folder; None where it is not."""
    return _drivers.get(_key(storage))


@contextlib.contextmanager
def drive(storage: Storage, *, outlived: bool = False) -> Iterator[Driver]:
    """Be the driver of the run in a folder while a block runs; blocks of one thread may be nested.

    Args:
        storage: the run's folder.
        outlived: whether tasks may outlive this process, as they run on a cluster.

    Raises:
        InUseError: another process, or another thread of this one, is its driver.
        CorruptArtifactError: a file of the lease is damaged.
    """
    key = _key(storage)
    with _lock:
        driver = _drivers.get(key)
        nested = driver is not None and driver.thread == threading.get_ident()
        if driver is not None and not nested:
            raise _in_use(storage, driver.lease)
        if driver is None:
            driver = _drivers[key] = _taken(storage, outlived=outlived)
    if nested:
        yield driver
        return
    threading.Thread(target=driver.beat, name="lease", daemon=True).start()
    try:
        yield driver
    finally:
        with _lock:
            del _drivers[key]
        driver.release()


def _key(storage: Storage) -> str:
    root = storage.root.removeprefix("file://")
    return os.path.realpath(root) if storage.is_local else storage.root


def _taken(storage: Storage, *, outlived: bool) -> Driver:
    """A lease with the next free number."""
    before = read_stored(storage, FENCE, _DAMAGED) or Fence(fence=0)
    number, own_folders, seen = max(1, before.fence), before.own_folders, list[int]()
    was_killed = False
    while True:
        # That of the number that counts is there already, unless there is none.
        if number > before.fence:
            lease = _lease(number, outlived=outlived, own_folders=own_folders)
            file = lease_of(number)
            try:
                storage.create(file.path, file.encode(lease))
                break
            except ExistsError:
                pass
        owner = read_stored(storage, lease_of(number), _DAMAGED)
        if owner is not None and not owner.released:
            proven = _check_gone(storage, owner)
            own_folders |= not proven or owner.outlived
            was_killed |= proven and not owner.outlived
        own_folders |= owner is not None and owner.own_folders
        seen.append(number)
        number += 1
    exclusive = before.exclusive if before.fence else _is_exclusive(storage, lease)
    if not exclusive:
        _check_alone(storage, lease)
    fence = Fence(fence=number, own_folders=own_folders, exclusive=exclusive)
    if storage.is_local:  # elsewhere each costs a request
        now = read_stored(storage, FENCE, _DAMAGED)
        if now is not None and now.fence >= number:
            # Others came and went since the number was read, and this lease had been removed.
            storage.remove(lease_of(number).path)
            return _taken(storage, outlived=outlived)
    storage.write(FENCE.path, FENCE.encode(fence))
    for old in seen if storage.is_local else []:
        storage.remove(lease_of(old).path)
    if was_killed:
        storage.remove_parts()
    return Driver(storage, lease, exclusive)


def _lease(number: int, *, outlived: bool, own_folders: bool) -> Lease:
    return Lease(
        fence=number,
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        machine=machine(),
        pid=os.getpid(),
        started=started_at(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        beat=time.time(),
        outlived=outlived,
        own_folders=own_folders,
    )


def _check_gone(storage: Storage, owner: Lease) -> bool:
    """Whether it is proven that an owner is gone; False where only its heartbeat is missing.

    Raises:
        InUseError: it is not gone.
    """
    if owner.machine == machine():
        if is_running(owner.pid, owner.started):
            raise _in_use(storage, owner)
        return True
    if time.time() - owner.beat < STALE:
        raise _in_use(storage, owner)
    time.sleep(WATCHED)  # its clock may be late; then a new heartbeat tells
    now = read_stored(storage, lease_of(owner.fence), _DAMAGED)
    if now is not None and now.beat != owner.beat and not now.released:
        raise _in_use(storage, now)
    return False


def _is_exclusive(storage: Storage, lease: Lease) -> bool:
    """Whether the store refuses to create a file that is there; local disks and memory do."""
    if storage.is_local or storage.root.startswith("memory://"):
        return True
    file = lease_of(lease.fence)
    try:
        # Other bytes: a store's client may take the same ones for its own, sent twice.
        storage.create(file.path, file.encode(lease.model_copy(update={"token": ""})))
    except ExistsError:
        return True
    storage.write(file.path, file.encode(lease))
    return False


def _check_alone(storage: Storage, lease: Lease) -> None:
    """Raise InUseError where a rival has written over a lease: the last one of them keeps it."""
    time.sleep(SETTLED)
    now = read_stored(storage, lease_of(lease.fence), _DAMAGED)
    if now is not None and now.token != lease.token:
        raise _in_use(storage, now)


def _in_use(storage: Storage, owner: Lease) -> InUseError:
    return InUseError(f"in use by {_named(owner)}", where=storage.root, todo=_TODO)


def _named(owner: Lease) -> str:
    return f"{owner.host} pid {owner.pid} since {owner.since}"
