"""The whole line: raw logs → events → vocab → shards → train → export → index → evaluate → report.

The file to read first. Each stage reads artifacts to its left and writes its own; a stage
that has finished with this config and these inputs is skipped.

    python jobs/all.py examples/movielens-100k.toml --set train.epochs=3
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from embedmill.jobs.launch import (
    Job,
    add_config,
    discard_from,
    driving,
    exit_code,
    leave,
    run_stage,
)
from embedmill.jobs.run_record import RunRecord
from embedmill.pipeline.config import load
from embedmill.pipeline.errors import ConfigError, GateError
from embedmill.pipeline.extras import naming_extras
from embedmill.pipeline.log import print_note
from embedmill.pipeline.store.object_store import set_deadline
from embedmill.pipeline.store.publication import is_published, publish
from embedmill.pipeline.store.run import Run, published, save_config
from embedmill.pipeline.store.signature import check_key, sign
from embedmill.pipeline.terminal import Terminal
from embedmill.pipeline.views.evaluate import Evaluation
from embedmill.schemas.evaluate import GateResult
from embedmill.schemas.stages import STAGES

__all__ = ["job_of", "main", "run_line"]


def job_of(stage: str) -> Job:
    """The job of a stage, which is imported now: not every machine has torch.

    Raises:
        MissingPackageError: the stage needs a package that only an extra installs.
    """
    with naming_extras(f"stage '{stage}'"):
        job: Job = importlib.import_module(f"embedmill.jobs.{stage}").JOB
    return job


def run_line(
    run: Run,
    *,
    first: str | None = None,
    last: str = "report",
    rebuild: bool = False,
    may_publish: bool = True,
    terminal: Terminal | None = None,
    record: RunRecord | None = None,
) -> None:
    """Bring the stages `first` to `last` up to date; publish when the line is whole.

    An older run does not take the place of a newer one: see `store.publication.why_older`.

    Args:
        run: the run.
        first: the stage to begin with, None for all; those before it must have finished with
            this config.
        last: the stage to end with.
        rebuild: build stale stages anew; with `first`, build it and what follows anew.
        may_publish: publish the run if its gates pass.
        terminal: where progress is shown.
        record: is told what happens; None for nobody.

    Raises:
        MissingArtifactError: a stage before `first` has not finished.
        StaleArtifactError: one has, with another config; or a later one has, and not `rebuild`.
        GateError: the line is whole, and a gate failed: nothing is published.
        InUseError: another process runs it.
    """
    terminal, record = terminal or Terminal(), record or RunRecord()
    record.open(run)
    set_deadline(run.config.run.store_deadline)
    check_key(run.config.run.sign)
    chosen = stages(first or "events", last)
    jobs = {stage: job_of(stage) for stage in chosen}
    for job in jobs.values():
        job.check_config(run.config)
    for stage in stages("events", chosen[0])[:-1]:
        # Compared with the raw files that it was built from: they may be gone by now.
        run.up_to_date(stage, run.artifact(stage).manifest.sources)
    with driving(run, terminal):
        save_config(run)
        record.saved = True
        if rebuild and first is not None:
            discard_from(run, first)
        built = [
            run_stage(run, jobs[stage], terminal, rebuild=rebuild, record=record).built
            for stage in chosen
        ]
        if last == "report":
            record.begin("evaluate")
            check_gates(run)
            record.stage = None
            sign(run)
            _publish(run, record, asked=may_publish, any_built=any(built))


def _publish(run: Run, record: RunRecord, *, asked: bool, any_built: bool) -> None:
    """Publish a complete run, and record whether it, as it is now, is the published one.

    Args:
        run: the run.
        record: is told why it is not published.
        asked: whether it may be published.
        any_built: whether a stage was built just now; looking at an old run again does not take
            the pointer from another one.
    """
    refused, pointer = "it was looked at again, and nothing was built", None
    if not asked:
        refused = "asked not to; `embedmill publish` does it"
    elif any_built or not is_published(run):
        done = publish(run)
        refused, pointer = done.refused, done.pointer
        record.now_published = not refused
    pointer = pointer or published(run.config.run.root)
    record.published = (
        pointer is not None
        and pointer.run == run.config.run.name
        and all(pointer.stages.get(one.stage) == one.content for one in record.stages)
    )
    record.not_published = refused


def stages(first: str, last: str) -> list[str]:
    """The stages from `first` to `last`."""
    names = list(STAGES)
    for name in (first, last):
        if name not in STAGES:
            raise ConfigError(f"no stage '{name}'; there are {', '.join(names)}")
    chosen = names[names.index(first) : names.index(last) + 1]
    if not chosen:
        raise ConfigError(f"stage '{last}' comes before '{first}'")
    return chosen


def check_gates(run: Run) -> None:
    """Raise GateError when a gate that `evaluate` judged has failed."""
    gates = Evaluation(run.artifact("evaluate")).gates
    failed = [g for g in gates if not g.passed]
    if failed:
        said = "; ".join(_said(g) for g in failed)
        raise GateError(
            f"{len(failed)} of {len(gates)} gates failed: {said}",
            where=run.storage.root,
            todo="The run is complete but not published",
        )


def _said(gate: GateResult) -> str:
    got = "nothing" if gate.got is None else f"{gate.got:.6g}"
    return f"{gate.gate} {gate.metric}: wanted {gate.wanted:.6g}, got {got}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the line from a command line; returns the exit code.

    The last line of stdout is a JSON object: `schemas.run.RunResult`.
    """
    parser = argparse.ArgumentParser(prog="jobs/all.py", description="Run the whole line.")
    add_config(parser)
    parser.add_argument("--from", dest="first", metavar="STAGE")
    parser.add_argument("--to", dest="last", default="report", metavar="STAGE")
    parser.add_argument("--rebuild", action="store_true", help="build anew where stale")
    parser.add_argument("--no-publish", action="store_true", help="leave published.json as it is")
    args = parser.parse_args(argv)

    record = RunRecord()

    def work() -> None:
        with record.reporting(as_json=True):
            run = Run(load(args.config, args.set, print_note, args.var))
            run_line(
                run,
                first=args.first,
                last=args.last,
                rebuild=args.rebuild,
                may_publish=not args.no_publish,
                record=record,
            )

    return exit_code(work)


if __name__ == "__main__":
    leave(main())
