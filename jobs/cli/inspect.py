"""Commands that look at finished runs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, RunFolder, app

__all__: list[str] = []


@app.command()
def status(folder: RunFolder, as_json: AsJson = False) -> None:
    """Show which stages have finished, with rows, bytes and seconds, and what they took."""
    from embedmill.jobs.cli import render
    from embedmill.pipeline.store.run import open_run, published
    from embedmill.schemas.stages import STAGES

    one = open_run(folder)
    found = {stage: one.find(stage) for stage in STAGES}
    if as_json:
        shown = {"content", "counters", "measured", "seconds"}
        said = {stage: a and a.manifest.model_dump(include=shown) for stage, a in found.items()}
        print(json.dumps(said))
        return
    render.print_stages(found)
    pointer = published(one.config.run.root)
    print(f"published in {one.config.run.root}: {pointer['run'] if pointer else 'nothing yet'}")


@app.command()
def verify(folder: RunFolder) -> None:
    """Re-read every file of a run and compare it with the manifests."""
    from embedmill.pipeline.errors import CorruptArtifactError
    from embedmill.pipeline.store.run import open_run
    from embedmill.schemas.stages import STAGES

    one, wrong = open_run(folder), []
    for stage in STAGES:
        artifact = one.find(stage)
        if artifact is None:
            print(f"{stage:<9} not yet")
            continue
        found = [f"{stage}/{path} {what}" for path, what in artifact.verify()]
        wrong += found
        files = artifact.manifest.files
        state = "differs" if found else "ok"
        print(f"{stage:<9} {state}: {len(files):,} files, {sum(f.bytes for f in files):,} bytes")
        for line in found:
            print(f"{'':<9} {line}")
    if wrong:
        raise CorruptArtifactError(
            f"{len(wrong)} files differ from their manifests: {wrong[0]}",
            where=folder,
            todo="Run its config again with --from that stage and --rebuild",
        )


@app.command()
def metrics(folder: RunFolder, as_json: AsJson = False) -> None:
    """Print what `evaluate` measured, and the seconds of every stage."""
    from embedmill.pipeline.query.metrics import metrics_of
    from embedmill.pipeline.store.run import open_run

    flat = metrics_of(open_run(folder))
    if as_json:
        print(json.dumps(flat))
        return
    width = max(map(len, flat))
    for name, value in flat.items():
        print(
            f"{name:<{width}}  {value:.6g}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value}"
        )


@app.command()
def diff(
    before: RunFolder,
    after: RunFolder,
    examples: Annotated[int, typer.Option(min=0, help="ids to name of each kind")] = 3,
    engine: Annotated[str, typer.Option(help="sail, spark or sc://host:port")] = "sail",
    as_json: AsJson = False,
) -> None:
    """Tell which users and items came, went and stayed between two runs."""
    from embedmill.jobs.cli import render
    from embedmill.pipeline.prepare.engine.connection import open_session
    from embedmill.pipeline.prepare.vocabulary.diff import compare
    from embedmill.pipeline.store.run import open_run

    runs = [open_run(folder) for folder in (before, after)]
    vocabs = [one.artifact("vocab") for one in runs]
    with open_session(engine, runs[0].config.run.root) as session:
        found = compare(session, vocabs[0], vocabs[1], examples)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    render.print_diff(found, runs[1])
