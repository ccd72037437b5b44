"""Opening the index of a run, by URL."""

from __future__ import annotations

from embedmill.pipeline.errors import ArtifactError, StaleArtifactError
from embedmill.pipeline.index.retrieval.retriever import Retriever
from embedmill.pipeline.index.retrieval.row_search import open_index
from embedmill.pipeline.store.artifact import Artifact, read_manifest
from embedmill.pipeline.store.run import Run, find_run, open_run
from embedmill.pipeline.store.storage import Storage
from embedmill.schemas.run import CONFIG
from embedmill.schemas.stages import STAGES

__all__ = ["open_retriever", "retriever_of"]


def retriever_of(run: Run) -> Retriever:
    """Open the index of a run; see `open_retriever`."""
    return Retriever(open_index(run.artifact("index"), keep=True), run)


def open_retriever(url: str, *, again: bool = False) -> Retriever:
    """Open the index at `url`: a run's folder, its `index` folder, or a root with a published run.

    The file is mapped into memory, so that this takes milliseconds. Its sha256 is checked the
    first time; see `embedmill.pipeline.store.cache`.

    Args:
        url: a folder or fsspec URL; a remote index file is fetched into the cache first.
        again: check the sha256 in any case.

    Raises:
        MissingArtifactError: there is no index.
        StaleArtifactError: it is of another version of its contract, or the published run was
            built anew since, and has not passed its gates.
        CorruptArtifactError: it is damaged.
    """
    url = url.rstrip("/") or "/"
    manifest = read_manifest(Storage(url))
    if manifest is not None:
        artifact, run = _index_folder(Artifact.of(manifest.stage, Storage(url), manifest))
    else:
        run = find_run(url)
        artifact = run.artifact("index")
    return Retriever(open_index(artifact, again=again, keep=True), run)


def _index_folder(artifact: Artifact) -> tuple[Artifact, Run | None]:
    """The index artifact of a folder, and its run where the folder lies in one."""
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
    folder, _, name = artifact.folder.rpartition("/")
    if name == "index" and Storage(folder or ".").exists(CONFIG):
        return artifact, open_run(folder or ".")
    return artifact, None
