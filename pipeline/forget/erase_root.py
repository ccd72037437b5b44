"""Forget users and items below a root.

The ids are put on the list of forgotten ids first: from then on no stage takes them in. Then every
run is written anew where it has something of them, in an order in which a reader sees each stage as
it was or as it is to be. What has to be known if the command is killed is in
`_forget/pending.json`; the same command, or one with other ids, goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from embedmill.pipeline.errors import InputError
from embedmill.pipeline.forget.erase_run import RunErasure
from embedmill.pipeline.forget.find_ids import Found, find_ids
from embedmill.pipeline.forget.folders import find_folders, write_deltas, write_exports
from embedmill.pipeline.forget.pending import PendingFile
from embedmill.pipeline.forget.spellings import pattern_of
from embedmill.pipeline.forget.verification import verify_root
from embedmill.pipeline.store.forgotten_ids import SIDES, ForgottenIds, add_forgotten
from embedmill.pipeline.store.lease import Driver, drive
from embedmill.pipeline.store.retention import REMOVED
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.pipeline.views.vocab import Vocab
from embedmill.schemas.erasure import FOLDER, ErasedRun, Receipt, Verification, receipt_of
from embedmill.schemas.manifest import digest
from embedmill.schemas.run import CONFIG, PUBLISHED, Published, publication

__all__ = ["NOT_UNDONE", "Forgetting", "forget"]

NOT_UNDONE = (
    "The vectors of other users and items, and counts, metrics and charts over all of them, were "
    "computed with the forgotten events; only a training without them undoes that (--retrain).",
    "The raw log is not touched: remove the ids from it. Stages that read it again leave them out.",
    "Copies elsewhere are not touched: other roots, databases that took exports or deltas, "
    "backups, versions that an object store keeps.",
)


@dataclass(frozen=True)
class Forgetting:
    """What was done, and which of the given ids no run knew."""

    receipt: Receipt
    path: str
    unknown: dict[str, list[str]]


def forget(
    root: str,
    ids: Mapping[str, Iterable[str]],
    *,
    also: Sequence[str] = (),
    verify: bool = False,
) -> Forgetting:
    """Erase users and items from everything below a root, and take them in never again.

    Args:
        root: folder or URL of the runs.
        ids: raw ids by side, "users" and "items".
        also: other folders with exports or deltas of these runs.
        verify: look through every byte afterwards.

    Raises:
        InputError: there is no run below the root.
        InUseError: a run is in use, or another command forgets something.
        StaleArtifactError: another version of this program wrote a stage.
    """
    given = {side: sorted(set(ids.get(side, ()))) for side in SIDES}
    root, places = root.rstrip("/"), [root.rstrip("/"), *also]
    if not _names(root):
        raise InputError("there is no run", where=root, todo="Give the folder that runs lie in")
    with ExitStack() as leases:
        leases.enter_context(drive(Storage(root).at(FOLDER)))
        drivers: dict[str, tuple[Run, Driver]] = {}
        while new := [name for name in _names(root) if name not in drivers]:
            for name in new:
                run = open_run(f"{root}/{name}")
                drivers[name] = (run, leases.enter_context(drive(run.storage)))
        forgotten = add_forgotten(root, given)
        found = {name: find_ids(run, forgotten) for name, (run, _) in drivers.items()}
        pending = PendingFile(root)
        pending.set_runs({name: one.known for name, one in found.items()})
        erased = _erase_runs(drivers, found, given, forgotten, pending)
        folders = find_folders(places)
        deltas = list(write_deltas(folders, forgotten, pending))
        exports = list(write_exports(root, folders, pending))
        vectors = [one for run in pending.state.runs.values() for one in run.vectors]
        looked = None
        if verify:
            own = _own([run for run, _ in drivers.values()], given, found)
            looked = verify_root(places, own, forgotten, vectors)
        unknown = _unknown(given, forgotten, pending)
        receipt = _receipt(given, unknown, erased, (exports, deltas), looked)
        path = _store(root, receipt)
        pending.end()
    return Forgetting(receipt, path, unknown)


def _erase_runs(
    drivers: Mapping[str, tuple[Run, Driver]],
    found: Mapping[str, Found],
    given: Mapping[str, Sequence[str]],
    forgotten: ForgottenIds,
    pending: PendingFile,
) -> list[ErasedRun]:
    """Erase ids from all runs, the earliest first, and name in each what was written anew."""
    raw = {one for ids in found.values() for side in SIDES for one in ids.raw[side]}
    pattern = pattern_of(raw.union(*given.values()))
    erasures = [
        RunErasure(run, driver, forgotten, pattern, pending)
        for run, driver in sorted(drivers.values(), key=lambda pair: _created(pair[0]))
    ]
    erased = [one.erase() for one in erasures]
    # One that was written before the run that it refers to; such chains are short.
    for _ in erasures:
        changed = [one.refer() for one in erasures]
        if not any(changed):
            break
    for root in {one.run.config.run.root for one in erasures}:
        _name_in_publications(root, pending)
    return [one for one in erased if one.stages or one.cleared]


def _name_in_publications(root: str, pending: PendingFile) -> None:
    """Name in publications, and in the pointer, what was written anew."""
    storage = Storage(root)
    names = [path for path in storage.at("_published").files() if path.endswith(".json")]
    files = [publication(int(name.removesuffix(".json"))) for name in names if name[0].isdigit()]
    for file in [*files, PUBLISHED]:
        try:
            data = storage.read(file.path)
            entry = file.decode(data)
        except (FileNotFoundError, *UNREADABLE):
            continue
        stages = pending.references.replaced(entry.stages)
        if stages != entry.stages:
            now = Published(**{**dict(entry), "stages": stages, "content": digest(stages)})
            storage.write(file.path, file.encode(now))


def _names(root: str) -> list[str]:
    """Names of the runs below a root; what is left of one that was being removed is removed."""
    storage, found = Storage(root), []
    for name in storage.folders():
        own = storage.at(name)
        if own.exists(REMOVED):
            own.clear()
        elif own.exists(CONFIG):
            found.append(name)
    return found


def _created(run: Run) -> str:
    """When the first stage of a run finished; runs go on from earlier ones."""
    events = run.find("events")
    return events.manifest.created if events is not None else "9"


def _own(
    runs: Iterable[Run], given: Mapping[str, Sequence[str]], found: Mapping[str, Found]
) -> dict[str, set[str]]:
    """Ids by side whose text may be nowhere: those that are no id of the other side."""
    raw = {
        side: set(given[side]).union(*(one.raw[side] for one in found.values())) for side in SIDES
    }
    for run in runs:
        vocab = run.find("vocab")
        for side, other in zip(SIDES, reversed(SIDES), strict=True) if vocab else ():
            assert vocab is not None
            for entry in Vocab(vocab).files(other):
                ids = vocab.read_table(entry.path, ["id"])["id"]
                both = ids.filter(pc.is_in(ids, pa.array(sorted(raw[side]), pa.string())))
                raw[side] -= set(both.to_pylist())
    return raw


def _unknown(
    given: Mapping[str, Sequence[str]], forgotten: ForgottenIds, pending: PendingFile
) -> dict[str, list[str]]:
    known = {
        side: {digest for run in pending.state.runs.values() for digest in getattr(run, side)}
        for side in SIDES
    }
    return {
        side: [raw for raw in given[side] if forgotten.hash(side, raw) not in known[side]]
        for side in SIDES
    }


def _receipt(
    given: Mapping[str, Sequence[str]],
    unknown: Mapping[str, Sequence[str]],
    erased: list[ErasedRun],
    folders: tuple[list[str], list[str]],
    verification: Verification | None,
) -> Receipt:
    return Receipt(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        users=len(given["users"]),
        items=len(given["items"]),
        unknown=sum(map(len, unknown.values())),
        runs=erased,
        exports=folders[0],
        deltas=folders[1],
        verification=verification,
        not_undone=list(NOT_UNDONE),
    )


def _store(root: str, receipt: Receipt) -> str:
    storage, number = Storage(root), 1
    while storage.exists(receipt_of(number).path):
        number += 1
    file = receipt_of(number)
    storage.write(file.path, file.encode(receipt))
    return storage.url(file.path)
