"""Which run is published, which run may take its place, and which ones were before.

Publications are counted. Each is a file that is created once and never changed
(`schemas.run.publication`): of two runs that publish at once, one gets the number, and the other
looks again whether it is still the newer one. `published.json` is a copy of the last publication,
for readers; whoever writes it looks afterwards for a later publication, and writes that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from embedmill.pipeline.config import Config
from embedmill.pipeline.errors import (
    ArtifactError,
    CorruptArtifactError,
    MissingArtifactError,
)
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.lease import current_driver
from embedmill.pipeline.store.run import Run, published
from embedmill.pipeline.store.storage import ExistsError, Storage
from embedmill.pipeline.store.stored_json import UNREADABLE
from embedmill.schemas.manifest import digest
from embedmill.schemas.run import PUBLISHED, Published, publication
from embedmill.schemas.stages import STAGES
from embedmill.schemas.vocab import BASE

__all__ = [
    "Publication",
    "date_of",
    "is_earlier",
    "is_published",
    "publications",
    "publish",
    "rollback",
    "why_older",
]

_LONGEST_CHAIN = 10_000  # runs that continue each other


@dataclass(frozen=True)
class Publication:
    """What is published after an attempt to publish, and why it is another run; '' if it is not."""

    pointer: Published
    refused: str = ""


def date_of(config: Config) -> str:
    """The day or time that a run is for: the variable `ds`, else `events.date_to`; '' for none."""
    ds = config.vars.get("ds", "")
    return ds if _time(ds) is not None else config.events.date_to


def is_earlier(date: str, other: str) -> bool:
    """Whether both runs are for a day or time, and the first one's is earlier."""
    ours, theirs = _time(date), _time(other)
    return ours is not None and theirs is not None and ours < theirs


def why_older(ours: Published, theirs: Published, root: str) -> str:
    """Why a published run is newer than another one; '' if it is not.

    This is the order of runs. A run is older than another if it is for an earlier date; where one
    of them has no date, if the other one continues its vocabulary, directly or through others.

    Args:
        ours: the publication that a run would have.
        theirs: what is published.
        root: where the runs lie.
    """
    if ours.run == theirs.run:
        return ""
    if _time(ours.date) is not None and _time(theirs.date) is not None:
        is_older = is_earlier(ours.date, theirs.date)
        return f"'{theirs.run}' is for {theirs.date}, this run for {ours.date}" if is_older else ""
    folder = _folder(root, ours.run)
    directly = (theirs.base_run or "").rstrip("/") == folder
    if not directly and (ours.base_run or "").rstrip("/") == _folder(root, theirs.run):
        return ""
    if directly or folder in _chain(theirs.base_run):
        return f"'{theirs.run}' continues the vocabulary of this run"
    return ""


def publish(run: Run, *, force: bool = False) -> Publication:
    """Make a run the one that readers get. Its gates must have been checked.

    Args:
        run: a run whose stages have all finished.
        force: also if a newer run is published; see `why_older`.

    Raises:
        MissingArtifactError: a stage has not finished.
    """
    root = run.config.run.root
    storage, ours = Storage(root), _publication_of(run)
    built = _built(run)
    while True:
        latest = _latest(storage)
        if latest is not None:
            # Killed before the pointer was written.
            if _is_same(latest, ours) and latest.published >= built:
                return Publication(_point(storage, latest))
            if not force and (reason := why_older(ours, latest, root)):
                return Publication(_point(storage, latest), reason)
        driver = current_driver(run.storage)
        done = _append(storage, latest, ours, exclusive=driver is not None and driver.exclusive)
        if done is not None:
            return Publication(_point(storage, done))


def rollback(root: str) -> Published:
    """Publish again what was published before the run that is published now.

    Called again, it goes further back. Runs that were deleted or built anew are passed over.

    Raises:
        MissingArtifactError: nothing is published, or no earlier run is left.
    """
    storage = Storage(root)
    while True:
        earlier = publications(root)
        latest = next(earlier, None)
        if latest is None:
            raise MissingArtifactError("nothing is published", where=root)
        for entry in earlier:
            if entry.run != latest.run and _is_whole(root, entry):
                break
        else:
            raise MissingArtifactError(
                f"no run that was published before '{latest.run}' is left",
                where=root,
                todo="`embedmill list` shows the runs, `embedmill publish RUN --force` takes one",
            )
        number = entry.returns_to or entry.number
        again = entry.model_copy(update={"returns_to": number, "published": _now()})
        if (done := _append(storage, latest, again)) is not None:
            return _point(storage, done)


def publications(root: str) -> Iterator[Published]:
    """What is published below a root, and then what was before it, without what was rolled back.

    Raises:
        CorruptArtifactError: `published.json` is damaged, and nothing else says what it said.
    """
    storage = Storage(root)
    entry = _latest(storage)
    if entry is None:
        entry = published(root)
    while entry is not None:
        yield entry
        number = (entry.returns_to or entry.number) - 1
        while number > 0 and (entry := _read(storage, number)) is None:
            number -= 1
        if number < 1:
            return


def is_published(run: Run) -> bool:
    """Whether this run, as it is, was published, or another one was after it was built.

    A damaged pointer counts as none: the run is published again. Times alone do not tell: two runs
    end in one second, and clocks go back. So another run's publication counts as later only if its
    time is, and if this run does not come after it in the order of runs (`why_older`), unless this
    one was published before: then somebody has chosen the other one.
    """
    try:
        pointer = published(run.config.run.root)
    except CorruptArtifactError:
        return False
    if pointer is None:
        return False
    ours = _publication_of(run)
    if _is_same(pointer, ours):
        return True
    is_later = pointer.published > _built(run)
    if is_later and not why_older(pointer, ours, run.config.run.root):
        return True
    storage = Storage(run.config.run.root)
    earlier = (_read(storage, number) for number in range(pointer.number - 1, 0, -1))
    return any(one is not None and _is_same(one, ours) for one in earlier)


def _built(run: Run) -> str:
    """When the last of its stages was committed."""
    return max(run.artifact(stage).manifest.created for stage in STAGES)


def _is_same(one: Published, other: Published) -> bool:
    """Whether two publications are of the same run with the same content."""
    return (one.run, one.content) == (other.run, other.content)


def _publication_of(run: Run) -> Published:
    contents = {stage: run.artifact(stage).manifest.content for stage in STAGES}
    vocab = run.artifact("vocab")
    return Published(
        run=run.config.run.name,
        base_run=vocab.read_json(BASE).continues if vocab.has(BASE.path) else None,
        content=digest(contents),
        stages=contents,
        published=_now(),
        date=date_of(run.config),
    )


def _latest(storage: Storage) -> Published | None:
    """The last publication, which `published.json` may not name yet."""
    try:
        pointer = published(storage.root)
    except CorruptArtifactError:
        pointer = None
    first = number = pointer.number if pointer else 0
    while storage.exists(publication(number + 1).path):
        number += 1
    for one in range(number, first, -1):
        if (entry := _read(storage, one)) is not None:
            return entry.model_copy(update={"number": number})
    return pointer


def _append(
    storage: Storage, latest: Published | None, ours: Published, *, exclusive: bool = False
) -> Published | None:
    """Create the publication after the latest one; None where another one got its number.

    Args:
        storage: the root.
        latest: the last publication.
        ours: without its number.
        exclusive: whether the store is known to refuse the second of two writers of a new file.
    """
    if latest is not None and latest.number == 0:  # of a version that did not count them
        latest = _create(storage, latest.model_copy(update={"number": 1}), exclusive=exclusive)
        if latest is None:
            return None
    number = latest.number + 1 if latest else 1
    return _create(storage, ours.model_copy(update={"number": number}), exclusive=exclusive)


def _create(storage: Storage, entry: Published, *, exclusive: bool) -> Published | None:
    file = publication(entry.number)
    data = file.encode(entry)
    try:
        storage.create(file.path, data)
    except ExistsError:
        return None
    # Some object stores let the second one overwrite: whose it is in the end is read again.
    return entry if exclusive or storage.read(file.path) == data else None


def _point(storage: Storage, entry: Published) -> Published:
    """Make `published.json` name the publication, or the last one that came meanwhile."""
    while True:
        storage.write(PUBLISHED.path, PUBLISHED.encode(entry))
        if not entry.number or not storage.exists(publication(entry.number + 1).path):
            return entry
        entry = _latest(storage) or entry


def _read(storage: Storage, number: int) -> Published | None:
    """A publication; None where its file is gone or damaged."""
    try:
        return publication(number).decode(storage.read(publication(number).path))
    except (FileNotFoundError, *UNREADABLE):
        return None


def _is_whole(root: str, entry: Published) -> bool:
    """Whether the stages of a publication are still what was published."""
    storage = Storage(_folder(root, entry.run))
    try:
        found = {stage: read_manifest(storage.at(stage)) for stage in entry.stages}
    except ArtifactError:
        return False
    return all(m is not None and m.content == entry.stages[s] for s, m in found.items())


def _chain(folder: str | None) -> Iterator[str]:
    """The folder of a run, of the one whose vocabulary it continues, and so on."""
    for _ in range(_LONGEST_CHAIN):
        if not folder:
            return
        yield folder.rstrip("/")
        storage = Storage(folder).at("vocab")
        try:
            manifest = read_manifest(storage)
            if manifest is None:
                return
            vocab = Artifact.of("vocab", storage, manifest)
            folder = vocab.read_json(BASE).continues if vocab.has(BASE.path) else None
        except ArtifactError:
            return


def _folder(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"


def _time(text: str) -> datetime | None:
    """A day or time in ISO 8601, without a zone in UTC; None for any other text."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
