"""A run for each of several days, in order, each continuing the vocabulary of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from embedmill.jobs.all import run_line
from embedmill.jobs.run_record import RunRecord
from embedmill.pipeline.config import Config, load
from embedmill.pipeline.errors import ConfigError
from embedmill.pipeline.log import print_note
from embedmill.pipeline.store.run import Run
from embedmill.pipeline.terminal import Terminal
from embedmill.schemas.run import RunResult

__all__ = ["Backfill", "days_between"]

_STAMP = "vocab.previous"  # in the manifest of `vocab`: the content of the base vocabulary


def days_between(first: str, last: str) -> list[str]:
    """The days from the first to the last one, both included, as `2026-11-22`.

    Raises:
        ConfigError: one of them is no day, or the last comes before the first.
    """
    ends = []
    for option, text in (("--from", first), ("--to", last)):
        try:
            ends.append(date.fromisoformat(text))
        except ValueError:
            raise ConfigError(f"a day such as 2026-11-22, not '{text}'", where=option) from None
    if ends[0] > ends[1]:
        raise ConfigError(f"'{last}' comes before '{first}'", where="--to")
    return [(ends[0] + timedelta(n)).isoformat() for n in range((ends[1] - ends[0]).days + 1)]


@dataclass
class Backfill:
    """Runs of one config for several days.

    Attributes:
        file: the TOML.
        sets: overrides.
        given: values of variables beside the day.
        variable: the variable whose value is the day.
        rebuild: build stale stages of each day anew.
        may_publish: publish each day that is newer than what is published.
    """

    file: Path
    sets: Sequence[str] = ()
    given: Sequence[str] = ()
    variable: str = "ds"
    rebuild: bool = False
    may_publish: bool = True

    def configs(self, days: Sequence[str]) -> dict[str, Config]:
        """The config of each day.

        Raises:
            ConfigError: one is wrong, or two days have the same run.
        """
        configs = {day: self._load(day, ()) for day in days}
        names = [config.run.name for config in configs.values()]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"run.name: '{names[0]}' is the name of several days",
                where=str(self.file),
                todo=f'Put the day into it: name = "plays-{{{self.variable}}}"',
            )
        return configs

    def run(
        self, days: Sequence[str], terminal: Terminal, done: Callable[[str, RunResult], None]
    ) -> None:
        """Run the days in order; end with the first that fails.

        Args:
            days: in order.
            terminal: where progress is shown.
            done: is given each day with its result, the failed one included.

        Raises:
            EmbedmillError: why a day failed.
        """
        before: Run | None = None
        for day, config in self.configs(days).items():
            record = RunRecord()
            try:
                with record.reporting(as_json=False):
                    terminal.say(f"{config.run.name}")
                    run = Run(self._load(day, tuple(_continuing(config, before))))
                    run_line(
                        run,
                        rebuild=self.rebuild,
                        may_publish=self.may_publish,
                        terminal=terminal,
                        record=record,
                    )
            finally:
                done(day, record.result())
            before = run

    def _load(self, day: str, sets: Sequence[str]) -> Config:
        given = [*self.given, f"{self.variable}={day}"]
        return load(self.file, [*self.sets, *sets], print_note, given)


def _continuing(config: Config, before: Run | None) -> Iterator[str]:
    """The overrides by which a day continues the day before: vocabulary, training, space.

    There are none for a config that continues no vocabulary, and for a day that stands and was
    built on another vocabulary.
    """
    if before is None or not config.vocab.previous:
        return
    finished, base = Run(config).manifest("vocab"), before.manifest("vocab")
    if finished is None or (base and finished.sources.get(_STAMP) == base.content):
        yield f'vocab.previous="{before.config.run.name}"'
        for key, value in (
            ("train.start", config.train.start),
            ("export.align", config.export.align),
        ):
            if value == "published":
                yield f'{key}="{before.config.run.name}"'
