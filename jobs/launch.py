"""From a command line to a finished stage: config, up-to-date check, errors to exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from embedmill.jobs.run_record import BUG, INTERRUPTED, TERMINATED, RunRecord, failure_of
from embedmill.pipeline.config import Config, load
from embedmill.pipeline.cpu_time import CpuTime
from embedmill.pipeline.errors import ArtifactError, EmbedmillError, MachineError
from embedmill.pipeline.extras import naming_extras
from embedmill.pipeline.log import (
    LOG_FORMATS,
    Progress,
    log_event,
    logs_json,
    print_note,
    set_log_format,
)
from embedmill.pipeline.memory import PeakMemory
from embedmill.pipeline.store.artifact import MANIFEST, Artifact
from embedmill.pipeline.store.artifact_writer import Writer
from embedmill.pipeline.store.lease import drive
from embedmill.pipeline.store.object_store import set_deadline
from embedmill.pipeline.store.run import Run, save_config
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.stages import STAGES

__all__ = [
    "Job",
    "Outcome",
    "abandon",
    "add_config",
    "driving",
    "exit_code",
    "leave",
    "main_of",
    "run_stage",
]

_AGAIN = 0.05  # seconds


@dataclass(frozen=True)
class Job:
    """How a stage is run: the `JOB` of each job file.

    Attributes:
        stage: its name.
        build: does the work, and commits the artifact.
        sources: stamps of what the stage reads beside its inputs (raw files, the base
            vocabulary); they are part of the fingerprint.
        check: raises ConfigError for what is known to fail before anything has run.
        forget: drops, before a rebuild, what an unfinished attempt left to go on from.
    """

    stage: str
    build: Callable[[Run, Writer, Progress], None]
    sources: Callable[[Run], Mapping[str, Any]] | None = None
    check: Callable[[Config], None] | None = None
    forget: Callable[[Run], None] | None = None

    def check_config(self, config: Config) -> None:
        """Raise ConfigError for what is known to fail before anything has run."""
        if self.check is not None:
            self.check(config)


@dataclass(frozen=True)
class Outcome:
    """A finished stage, and whether it was built just now."""

    artifact: Artifact
    built: bool


def run_stage(
    run: Run, job: Job, terminal: Terminal, *, rebuild: bool, record: RunRecord | None = None
) -> Outcome:
    """Bring one stage up to date.

    Args:
        run: the run.
        job: the stage, and how it is run. Its config must have been checked.
        terminal: where progress is shown.
        rebuild: discard a stale artifact, and those after it, instead of raising.
        record: is told what happens; None for nobody.

    Raises:
        StaleArtifactError: finished with another config or input, and not `rebuild`.
    """
    stage, record = job.stage, record or RunRecord(run)
    record.begin(stage)
    sources = _sources(run, job)
    finished = rebuild and run.storage.exists(f"{stage}/{MANIFEST}")
    if _up_to_date(run, stage, sources, rebuild=rebuild):
        artifact = run.artifact(stage)
        terminal.skipped(stage, artifact)
        record.finish(artifact, built=False)
        return Outcome(artifact, built=False)
    if finished:
        sources = _sources(run, job)  # what was discarded may have had a say in them
    if rebuild and job.forget:
        job.forget(run)
    record.build(stage)
    out = run.writer(stage, sources)
    with PeakMemory() as memory, terminal.stage(stage) as progress:
        out.gauges += [memory.measured, CpuTime().measured]
        job.build(run, out, progress)
        artifact = run.artifact(stage)
    terminal.finished(stage, artifact)
    record.finish(artifact, built=True)
    return Outcome(artifact, built=True)


@contextmanager
def driving(run: Run, terminal: Terminal) -> Iterator[Terminal]:
    """Be the only driver of a run while a block runs; see `pipeline.store.lease`.

    Args:
        run: the run.
        terminal: where it is said that the store cannot keep two drivers apart.

    Raises:
        InUseError: another process is its driver.
    """
    with drive(run.storage, outlived=_outlived(run.config)) as driver:
        if not driver.exclusive:
            terminal.say(
                f"{run.storage.root}: this store does not refuse to create a file that exists "
                "(If-None-Match); start no second run of this name while one runs"
            )
        yield terminal


def _outlived(config: Config) -> bool:
    """Whether tasks may outlive this process: on a cluster, or as children of Spark or Ray."""
    on_ray = config.train.launcher == "ray" or config.index.launcher == "ray"
    return config.run.engine != "sail" or on_ray or bool(os.environ.get("RAY_ADDRESS"))


def discard_from(run: Run, stage: str) -> None:
    """Undo a stage and all that follow, the last one first."""
    names = list(STAGES)
    for name in reversed(names[names.index(stage) :]):
        run.discard(name)


def main_of(job: Job, argv: Sequence[str] | None = None) -> int:
    """The `main` of a job file: `jobs/<stage>.py CONFIG [--set …] [--var …] [--rebuild]`.

    The last line of stdout is a JSON object: `schemas.run.RunResult`.
    """
    parser = argparse.ArgumentParser(
        prog=f"jobs/{job.stage}.py", description=f"Run stage '{job.stage}' of a run."
    )
    add_config(parser)
    parser.add_argument("--rebuild", action="store_true", help="build anew where stale")
    args = parser.parse_args(argv)

    record = RunRecord()

    def work() -> None:
        with record.reporting(as_json=True):
            run = Run(load(args.config, args.set, print_note, args.var))
            record.open(run)
            set_deadline(run.config.run.store_deadline)
            job.check_config(run.config)
            with driving(run, Terminal()) as terminal:
                save_config(run)
                record.saved = True
                run_stage(run, job, terminal, rebuild=args.rebuild, record=record)

    return exit_code(work)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add what every job file takes: `CONFIG --set section.key=value --var NAME=VALUE --log`."""
    parser.add_argument("config", help="the run's TOML")
    parser.add_argument(
        "--log", type=set_log_format, metavar="{" + ",".join(LOG_FORMATS) + "}", help="see --help"
    )
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE")


def exit_code(work: Callable[[], None]) -> int:
    """Run `work`; say what went wrong in one sentence; return the process's exit code."""
    try:
        with _terminable(), naming_extras(""):
            work()
    except EmbedmillError as error:
        _say(str(error), error)
        return error.exit_code
    except KeyboardInterrupt as stop:
        with suppress(OSError):  # the terminal may be gone
            _say("interrupted; finished stages are kept, run the same command again to go on", stop)
        return TERMINATED if stop.args else INTERRUPTED
    except OSError as error:
        _say(str(MachineError(str(error))), error)
        return MachineError.exit_code
    except Exception as error:
        if not logs_json():
            traceback.print_exc()
        _say("this is a bug; please report it with the lines above", error)
        return BUG
    return 0


_abandoned: list[str] = []  # engines with threads that would not end with the interpreter


def abandon(engine: str) -> None:
    """Let this process end, when it ends with an error, without the end of the interpreter.

    Args:
        engine: whose threads wait for a process that is gone, or would crash the interpreter's end.
    """
    _abandoned.append(engine)


def leave(code: int) -> NoReturn:
    """End this process with an exit code; everything is cleaned up by now."""
    # After Ctrl-C, too, threads that Ray leaves behind may crash the interpreter's end.
    if code in (INTERRUPTED, TERMINATED) or (code and _abandoned):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _say(text: str, error: BaseException) -> None:
    """Print why a command ended early, or log it as `schemas.run.Failure` has it."""
    if not logs_json():
        print(f"embedmill: {text}", file=sys.stderr)
        return
    failure = failure_of(error, None)
    facts = failure.as_json() | {"traceback": traceback.format_exc()}
    facts.pop("stage")
    if failure.exit_code != BUG:
        facts.pop("traceback")
    log_event("stopped" if isinstance(error, KeyboardInterrupt) else "failed", text=text, **facts)


def _sources(run: Run, job: Job) -> Mapping[str, Any]:
    return job.sources(run) if job.sources else {}


def _up_to_date(run: Run, stage: str, sources: Mapping[str, Any], *, rebuild: bool) -> bool:
    try:
        return run.up_to_date(stage, sources)
    except ArtifactError:
        if not rebuild:
            raise
        discard_from(run, stage)
        return False


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end a job as Ctrl-C does: children are stopped, temporary files removed.

    A terminal that is closed sends SIGHUP. Where it is ignored, as below `nohup`, it stays so.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt("terminated")

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = [(number, signal.signal(number, stop)) for number in numbers]
    hook, sys.unraisablehook = sys.unraisablehook, partial(_again, sys.unraisablehook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before:
            signal.signal(number, handler)


def _again(otherwise: Callable[[Any], object], lost: Any) -> None:
    """Send a signal once more whose exception was lost.

    Python runs a handler wherever the main thread happens to be, and drops what it raises
    in a finaliser or a weak reference's callback: the job would go on as if never asked to end.
    """
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        otherwise(lost)
        return
    number = signal.SIGTERM if lost.exc_value.args else signal.SIGINT
    # From a thread and a little later: a handler that ran here would be lost as well.
    threading.Timer(_AGAIN, os.kill, (os.getpid(), number)).start()
