"""Commands that inspect finished runs."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from embedmill.jobs.cli.app import AsJson, RunFolder, app

__all__: list[str] = []


@app.command()
def status(folder: RunFolder, as_json: AsJson = False) -> None:
    """Show which stages have finished, run or failed: results, bytes, seconds, memory."""
    from embedmill.jobs.cli import render, run_table
    from embedmill.pipeline.store.run import open_run, published
    from embedmill.pipeline.store.run_state import read_state
    from embedmill.schemas.stages import STAGES

    run = open_run(folder)
    artifacts, driver = {stage: run.find(stage) for stage in STAGES}, read_state(run)
    if as_json:
        keys = {"content", "counters", "measured", "seconds"}
        objects = {s: a and a.manifest.model_dump(include=keys) for s, a in artifacts.items()}
        print(json.dumps({**objects, "state": driver.as_json() if driver else None}))
        return
    render.print_stages(artifacts, driver)
    if driver is not None and driver.state != "done":
        run_table.print_state(driver)
    pointer = published(run.config.run.root)
    print(f"published in {run.config.run.root}: {pointer.run if pointer else 'nothing yet'}")


@app.command()
def verify(
    folder: RunFolder,
    key: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="public key (Ed25519, PEM): check that its owner signed the run (run.sign), and "
            "that nothing was changed since",
        ),
    ] = "",
) -> None:
    """Read every file of a run again and compare it with the manifests."""
    from embedmill.pipeline.errors import CorruptArtifactError
    from embedmill.pipeline.store.run import open_run
    from embedmill.pipeline.store.signature import check_signature
    from embedmill.schemas.stages import STAGES

    run, wrong = open_run(folder), list[str]()
    if key:
        signed = check_signature(run, key)
        print(f"signature ok: {signed.signed}, key {signed.key}")
    for stage in STAGES:
        artifact, found = run.verify(stage)
        if artifact is None:
            print(f"{stage:<9} not yet")
            continue
        differences = [f"{stage}/{path} {what}" for path, what in found]
        wrong += differences
        files = artifact.manifest.files
        state = "differs" if differences else "ok"
        print(f"{stage:<9} {state}: {len(files):,} files, {sum(f.bytes for f in files):,} bytes")
        for line in differences:
            print(f"{'':<9} {line}")
    if wrong:
        raise CorruptArtifactError(
            f"{len(wrong)} files differ from their manifests: {wrong[0]}",
            where=folder,
            todo="Run its config again with --from that stage and --rebuild",
        )


@app.command()
def metrics(folder: RunFolder, as_json: AsJson = False) -> None:
    """Print the metrics of a run, and the seconds of every stage."""
    from embedmill.pipeline.query.metrics import metrics_of
    from embedmill.pipeline.store.run import open_run

    metrics_by_name = metrics_of(open_run(folder))
    if as_json:
        print(json.dumps(metrics_by_name))
        return
    width = max(map(len, metrics_by_name))
    for name, value in metrics_by_name.items():
        print(
            f"{name:<{width}}  {value:.6g}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value}"
        )


@app.command()
def compare(
    before: RunFolder,
    after: Annotated[str, typer.Argument(metavar="RUN", help="another one, over the same log")],
    as_json: AsJson = False,
) -> None:
    """Compare the metrics of two runs, user by user: difference, 95 % interval, paired test."""
    from embedmill.jobs.cli import render
    from embedmill.pipeline.query.comparison import compare_runs
    from embedmill.pipeline.store.run import open_run

    comparison = compare_runs(open_run(before), open_run(after))
    if as_json:
        print(json.dumps(dataclasses.asdict(comparison)))
        return
    render.print_comparison(comparison)


@app.command()
def diff(
    before: RunFolder,
    after: RunFolder,
    examples: Annotated[int, typer.Option(min=0, help="example ids of each kind")] = 3,
    engine: Annotated[str, typer.Option(help="sail, spark or sc://host:port")] = "sail",
    as_json: AsJson = False,
) -> None:
    """Show which users and items came, went and stayed between two runs, and how vectors moved."""
    from embedmill.jobs.cli import render
    from embedmill.pipeline.evaluate.drift import measure_drift
    from embedmill.pipeline.prepare.engine.connection import open_session
    from embedmill.pipeline.prepare.vocabulary.diff import compare
    from embedmill.pipeline.store.run import open_run

    runs = [open_run(folder) for folder in (before, after)]
    vocabs = [run.artifact("vocab") for run in runs]
    with open_session(engine, runs[0].config.run.root) as session:
        difference = compare(session, vocabs[0], vocabs[1], examples)
    exports = [run.find("export") for run in runs]
    drift = None
    if exports[0] is not None and exports[1] is not None:
        drift = measure_drift(exports[1], exports[0], runs[1].config.run.seed)
    if as_json:
        moved = {} if drift is None else {"drift": drift.as_json()}
        print(json.dumps({**difference, **moved}, ensure_ascii=False))
        return
    render.print_diff(difference, runs[1])
    if drift is not None:
        render.print_drift(drift)
