"""What a command that may be killed has to remember: old hashes, and what it found of the ids."""

from __future__ import annotations

from collections.abc import Mapping

from embedmill.pipeline.forget.find_ids import merged
from embedmill.pipeline.forget.rewrite import References
from embedmill.pipeline.store.run import seen_content
from embedmill.pipeline.store.storage import Storage
from embedmill.pipeline.store.stored_json import read_stored
from embedmill.schemas.erasure import PENDING, Pending, PendingRun
from embedmill.schemas.manifest import Manifest, digest

__all__ = ["PendingFile"]

_DAMAGED = "Remove it and give the same command again: it finds what is left to do"


class PendingFile:
    """`_forget/pending.json` of a root; each change is stored before what it is about."""

    def __init__(self, root: str) -> None:
        self._storage = Storage(root)
        stored = read_stored(self._storage, PENDING, _DAMAGED)
        self.was_interrupted = stored is not None
        self.state = stored or Pending()

    @property
    def references(self) -> References:
        """New content hashes by the old ones."""
        return References(self.state.contents)

    def set_runs(self, found: Mapping[str, PendingRun]) -> None:
        """What was found in each run by name, with what was found before."""
        runs = {name: merged(one, self.state.runs.get(name)) for name, one in found.items()}
        self._set(runs={**self.state.runs, **runs})

    def set_manifest(self, run: str, old: Manifest, new: Manifest) -> None:
        """The manifest of a stage is about to be replaced."""
        contents = {}
        for reader in ("vocab", "report"):
            contents[seen_content(old, reader)] = seen_content(new, reader)
        before = self.state.runs[run].before if run in self.state.runs else {}
        if old.stage == "train" and "vocab" in before:
            # `train.start` and spaces are named by hashes of these.
            vocab = self.references.newest(before["vocab"])
            then, now = before["train"], new.content
            contents[digest([before["vocab"], then])] = digest([vocab, now])
            contents[digest(["space", then])[:16]] = digest(["space", now])[:16]
        self.add_contents(contents)

    def add_contents(self, contents: Mapping[str, str]) -> None:
        """New content hashes by the old ones."""
        new = {then: now for then, now in contents.items() if then != now}
        if any(self.state.contents.get(then) != now for then, now in new.items()):
            self._set(contents={**self.state.contents, **new})

    def add_files(self, files: Mapping[str, str]) -> None:
        """The sha256 that files of deltas are about to have, by their URL."""
        self._set(files={**self.state.files, **files})

    def add_exports(self, exports: Mapping[str, dict[str, object]]) -> None:
        """Folders of exports that are to be written anew, with their options."""
        if exports:
            self._set(exports={**self.state.exports, **exports})

    def end(self) -> None:
        """Nothing is left to do."""
        self._storage.remove(PENDING.path)

    def _set(self, **values: object) -> None:
        self.state = self.state.model_copy(update=values)
        self._storage.write(PENDING.path, PENDING.encode(self.state))
