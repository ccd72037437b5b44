"""The whole line: raw logs → events → vocab → shards → train → export → index → evaluate → report.

The file to read first. Each stage reads artifacts to its left and writes its own; a stage
that has finished with this config and these inputs is skipped.

    python jobs/all.py examples/movielens-100k.toml --set train.epochs=3
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from embedmill.jobs import evaluate, events, export, index, report, shards, train, vocab
from embedmill.jobs.launch import Job, add_config, discard_from, driving, exit_code, run_stage
from embedmill.pipeline.config import load
from embedmill.pipeline.errors import ConfigError, GateError
from embedmill.pipeline.log import print_note
from embedmill.pipeline.store.object_store import set_deadline
from embedmill.pipeline.store.run import Run, is_published, publish, save_config
from embedmill.pipeline.terminal import Terminal
from embedmill.pipeline.views.evaluate import Evaluation
from embedmill.schemas.evaluate import GateResult

__all__ = ["JOBS", "main", "run_line"]

JOBS: dict[str, Job] = {
    "events": events.JOB,
    "vocab": vocab.JOB,
    "shards": shards.JOB,
    "train": train.JOB,
    "export": export.JOB,
    "index": index.JOB,
    "evaluate": evaluate.JOB,
    "report": report.JOB,
}


def run_line(
    run: Run,
    *,
    first: str | None = None,
    last: str = "report",
    rebuild: bool = False,
    terminal: Terminal | None = None,
) -> None:
    """Bring the stages `first` to `last` up to date; publish when the line is whole.

    Args:
        run: the run.
        first: the stage to begin with, None for all; those before it must have finished with
            this config.
        last: the stage to end with.
        rebuild: build stale stages anew; with `first`, build it and what follows anew.
        terminal: where progress is shown.

    Raises:
        MissingArtifactError: a stage before `first` has not finished.
        StaleArtifactError: one has, with another config; or a later one has, and not `rebuild`.
        GateError: the line is whole, and a gate failed: nothing is published.
        InUseError: another process runs it.
    """
    terminal = terminal or Terminal()
    set_deadline(run.config.run.store_deadline)
    chosen = stages(first or "events", last)
    for stage in chosen:
        JOBS[stage].check_config(run.config)
    for stage in stages("events", chosen[0])[:-1]:
        # Compared with the raw files that it was built from: they may be gone by now.
        run.up_to_date(stage, run.artifact(stage).manifest.sources)
    with driving(run, terminal):
        save_config(run)
        if rebuild and first is not None:
            discard_from(run, first)
        built = [run_stage(run, JOBS[stage], terminal, rebuild=rebuild).built for stage in chosen]
        if last == "report":
            check_gates(run)
            # Looking at an old run again does not take the pointer from a newer one.
            if any(built) or not is_published(run):
                publish(run)


def stages(first: str, last: str) -> list[str]:
    """The stages from `first` to `last`."""
    names = list(JOBS)
    for name in (first, last):
        if name not in JOBS:
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
    """Run the line from a command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="jobs/all.py", description="Run the whole line.")
    add_config(parser)
    parser.add_argument("--from", dest="first", metavar="STAGE")
    parser.add_argument("--to", dest="last", default="report", metavar="STAGE")
    parser.add_argument("--rebuild", action="store_true", help="build anew where stale")
    args = parser.parse_args(argv)

    def work() -> None:
        run = Run(load(args.config, args.set, print_note, args.var))
        run_line(run, first=args.first, last=args.last, rebuild=args.rebuild)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
