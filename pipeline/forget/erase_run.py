"""Forgotten ids are erased from one run, stage by stage."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from embedmill.pipeline import index as index_stage
from embedmill.pipeline import report as report_stage
from embedmill.pipeline.errors import StaleArtifactError
from embedmill.pipeline.forget.erase_events import erase_events, erase_shards, erase_vocab
from embedmill.pipeline.forget.erase_reports import erase_evaluate, erase_report
from embedmill.pipeline.forget.erase_vectors import erase_export, erase_train
from embedmill.pipeline.forget.find_ids import rows_of
from embedmill.pipeline.forget.pending import PendingFile
from embedmill.pipeline.forget.rewrite import (
    Changed,
    commit,
    new_folder,
    remove_unnamed,
    replace_manifest,
    rewritten,
)
from embedmill.pipeline.forget.spellings import names_one
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.artifact import Artifact
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.forgotten_ids import ForgottenIds
from embedmill.pipeline.store.lease import Driver
from embedmill.pipeline.store.run import Run
from embedmill.schemas.erasure import ErasedRun, PendingRun
from embedmill.schemas.run import STATE
from embedmill.schemas.stages import STAGES

__all__ = ["RunErasure"]

_PROFILE = "profile"
Builder = Callable[[Run, Writer], None]


@dataclass
class RunErasure:
    """The erasure of forgotten ids from a run.

    Attributes:
        run: the run.
        driver: this process, as its driver.
        forgotten: forgotten ids.
        pattern: matches text that names an id whose text is known.
        pending: what must be remembered if this is killed.
    """

    run: Run
    driver: Driver
    forgotten: ForgottenIds
    pattern: re.Pattern[bytes] | None
    pending: PendingFile
    stages: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)

    @property
    def known(self) -> PendingRun:
        """What the run knew of the ids."""
        return self.pending.state.runs.get(self.run.config.run.name, PendingRun())

    @property
    def _has_ids(self) -> bool:
        return bool(self.known.users or self.known.items)

    def erase(self) -> ErasedRun:
        """Write all stages anew that have something of a forgotten id.

        What has not finished is removed, with checkpoints of a training: it is done again, without
        these ids.
        """
        for stage in STAGES:
            home = self.run.storage.at(stage)
            artifact = self.run.find(stage)
            if artifact is None:
                if remove_unnamed(home, None):
                    self.cleared.append(stage)
                continue
            self._check_version(artifact)
            if stage in ("index", "report") and len(rows_of(self.known, "items")):
                self._build_anew(artifact)
            else:
                counters = dict(artifact.counters)
                self._replace(artifact, self._changed(artifact, counters), counters)
        self._clear_rest()
        before, found = self.known.before, self.known.users or self.known.items
        now = {stage: self.run.find(stage) for stage in before}
        self.pending.add_contents(
            {before[stage]: one.manifest.content for stage, one in now.items() if one is not None}
        )
        return ErasedRun(
            run=self.run.config.run.name,
            users=rows_of(self.known, "users").tolist(),
            items=rows_of(self.known, "items").tolist(),
            events=sum(one.events for one in found.values()),
            stages=self.stages,
            cleared=self.cleared,
        )

    def refer(self) -> bool:
        """Name in all manifests what was written anew since; whether any has changed."""
        before = len(self.stages)
        for stage in STAGES:
            artifact = self.run.find(stage)
            if artifact is not None:
                changed: Iterable[Changed] = ()
                if stage == "export":
                    nobody, references = PendingRun(), self.pending.references
                    changed = erase_export(artifact, ForgottenIds(), nobody, references)
                self._replace(artifact, changed, dict(artifact.counters))
        return len(self.stages) > before

    def _changed(self, artifact: Artifact, counters: dict[str, int]) -> Iterator[Changed]:
        forgotten, known = self.forgotten, self.known
        if artifact.stage == "events":
            yield from erase_events(artifact, forgotten, self.pattern, counters)
        if not self._has_ids and artifact.stage not in ("export", "report"):
            return
        if artifact.stage == "vocab":
            yield from erase_vocab(artifact, forgotten, known, self._events(), counters)
        elif artifact.stage == "shards":
            vocab = self.run.artifact("vocab")
            yield from erase_shards(artifact, vocab, known, self._events(), counters)
        elif artifact.stage == "train":
            yield from erase_train(artifact, known)
        elif artifact.stage == "export":
            yield from erase_export(artifact, forgotten, known, self.pending.references)
        elif artifact.stage == "evaluate":
            yield from erase_evaluate(artifact, forgotten)
        elif artifact.stage == "report" and (self._has_ids or "events" in self.stages):
            yield from erase_report(self.run, artifact, self.pattern)

    def _events(self) -> int:
        return self.run.artifact("events").counters["events"]

    def _replace(
        self, artifact: Artifact, changed: Iterable[Changed], counters: dict[str, int]
    ) -> None:
        new = rewritten(self.run, artifact, changed, self.driver)
        manifest = replace_manifest(self.run, artifact, new, counters, self.pending.references)
        if manifest == artifact.manifest:
            home = self.run.storage.at(artifact.stage)
            remove_unnamed(home, artifact.manifest, registered=True)
            return
        self.pending.set_manifest(self.run.config.run.name, artifact.manifest, manifest)
        commit(self.run, artifact, manifest, self.driver)
        self.stages.append(artifact.stage)

    def _build_anew(self, artifact: Artifact) -> None:
        """Build an index or a report anew, from the other stages without the forgotten items."""
        old, home = artifact.manifest, self.run.storage.at(artifact.stage)
        same = ([*old.files], old.folder)
        manifest = replace_manifest(self.run, artifact, same, old.counters, self.pending.references)
        writer = Writer(
            stage=old.stage,
            storage=home.at(new_folder(self.driver)),
            fingerprint=manifest.fingerprint,
            config=manifest.config,
            inputs=manifest.inputs,
            sources=manifest.sources,
            folder=new_folder(self.driver),
            driver=self.driver,
            replaces=old,
        )
        if old.stage == "index":
            index_stage.build(self.run, writer, Quiet())
        else:
            report_stage.build(self.run, writer, Quiet())
        self.run.read_again(old.stage)
        new = self.run.artifact(old.stage).manifest
        self.pending.set_manifest(self.run.config.run.name, old, new)
        remove_unnamed(home, new)
        self.stages.append(old.stage)

    def _clear_rest(self) -> None:
        """Remove the profile of the log, and a failure that names an id."""
        storage = self.run.storage
        storage.at(_PROFILE).clear()
        try:
            state = storage.read(STATE.path)
        except FileNotFoundError:
            return
        if names_one(self.pattern, state) or self.forgotten.names_any(state):
            storage.remove(STATE.path)

    def _check_version(self, artifact: Artifact) -> None:
        if not artifact.readable:
            raise StaleArtifactError(
                f"stage '{artifact.stage}' has version {artifact.manifest.version} of its "
                f"contract, this program changes {STAGES[artifact.stage].version}",
                where=self.run.storage.root,
                todo="Remove the run, run its config again with --rebuild, or use the release "
                "that wrote it",
            )
