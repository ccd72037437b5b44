"""The index of a run, by URL."""

from __future__ import annotations

from embedmill.pipeline.errors import ArtifactError, StaleArtifactError
from embedmill.pipeline.index.retrieval.retriever import Reader
from embedmill.pipeline.index.retrieval.row_search import open_index
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.run import Run, find_run, open_run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.stages import STAGES

__all__ = ["open_reader", "reader_of"]


def reader_of(run: Run) -> Reader:
    """The index of a run; see `open_reader`."""
    return Reader(open_index(run.artifact("index"), keep=True), run)


def open_reader(url: str, *, again: bool = False) -> Reader:
    """The index at `url`: a run's folder, its `index` folder, or a root with a published run.

    Its file is mapped into memory, so that this takes milliseconds. Its sha256 is checked once;
    see `embedmill.pipeline.store.cache`.

    Args:
        url: a folder or fsspec URL; a remote index file is fetched into the cache first.
        again: check the sha256 in any case.

    Raises:
        MissingArtifactError: there is none.
        StaleArtifactError: it is of another version of its contract, or the published run was
            built anew since, and has not passed its gates.
        CorruptArtifactError: it is damaged.
    """
    url = url.rstrip("/") or "/"
    manifest = read_manifest(Storage(url))
    if manifest is not None:
        artifact, run = _alone(Artifact(manifest.stage, Storage(url), manifest))
    else:
        run = find_run(url)
        artifact = run.artifact("index")
    return Reader(open_index(artifact, again=again, keep=True), run)


def _alone(artifact: Artifact) -> tuple[Artifact, Run | None]:
    """An index artifact, with the run it lies in where it does."""
    if artifact.stage != "index":
        raise ArtifactError(
            f"is the artifact of stage '{artifact.stage}', not an index",
            where=artifact.storage.root,
            todo="Give the folder of the run",
        )
    if not artifact.readable:
        raise StaleArtifactError(
            f"has version {artifact.manifest.version} of its contract, this program reads "
            f"{STAGES['index'].version}",
            where=artifact.storage.root,
            todo="Build it again, or use the release that wrote it",
        )
    folder, _, name = artifact.storage.root.rpartition("/")
    if name == "index" and Storage(folder or ".").exists("config.json"):
        return artifact, open_run(folder or ".")
    return artifact, None
