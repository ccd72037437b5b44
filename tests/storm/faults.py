"""What strikes drivers, by name: each takes a storm's round, and may start drivers of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from embedmill.pipeline.config import Config
from tests.storm.servers import EXECUTOR, Engine
from tests.storm.world import Place, marked
from tests.support.s3_server import S3Server
from tests.support.train_drivers import below

__all__ = ["ANYWHERE", "FAULTS", "Round"]

Driver = subprocess.Popen[str]


@dataclass
class Round:
    """A round: drivers of one config, and what is drawn for it.

    Attributes:
        place: of the drivers.
        config: of the run.
        words: further ones of the command.
        draw: decides when something strikes, and what else is open.
        last: seconds after a driver's start up to which something strikes.
        server: that the drivers need; None for none.
    """

    place: Place
    config: Config
    words: tuple[str, ...]
    draw: random.Random
    last: float
    server: S3Server | Engine | None = None

    def start(self, **faults: Any) -> Driver:
        driver: Driver = self.place.start(self.config, faults, *self.words)
        return driver

    def wait(self, least: float = 0.0) -> None:
        time.sleep(self.draw.uniform(least, self.last))

    def strike(self) -> Driver:
        """A driver that has run for a while."""
        driver = self.start()
        self.wait()
        return driver


def _signal(number: signal.Signals) -> Callable[[Round], None]:
    def strike(round_: Round) -> None:
        driver = round_.strike()
        with suppress(ProcessLookupError):
            os.kill(driver.pid, number)
        round_.place.end(driver)

    return strike


def _kill_group(round_: Round) -> None:
    driver = round_.strike()
    with suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)
    round_.place.end(driver)


def _kill_child(word: str) -> Callable[[Round], None]:
    """Kill a process below the driver whose title has a word."""

    def strike(round_: Round) -> None:
        driver = round_.strike()
        end = time.monotonic() + (60 if word else 1)
        while driver.poll() is None and time.monotonic() < end:
            found = [pid for pid, title in marked(round_.place.mark)
                     if pid != driver.pid and word in title]  # fmt: skip
            if found:
                with suppress(ProcessLookupError):
                    os.kill(round_.draw.choice(sorted(found)), signal.SIGKILL)
                break
            time.sleep(0.1)
        round_.place.end(driver)

    return strike


def _pause(round_: Round) -> None:
    driver = round_.strike()
    with suppress(ProcessLookupError):
        os.kill(driver.pid, signal.SIGSTOP)
    second = round_.start() if round_.draw.random() < 0.5 else None
    time.sleep(round_.draw.uniform(0.5, 4))
    with suppress(ProcessLookupError):
        os.kill(driver.pid, signal.SIGCONT)
    for one in (driver, second):
        if one is not None:
            round_.place.end(one)


def _two(round_: Round) -> None:
    first = round_.start()
    time.sleep(round_.draw.choice([0.0, 0.05, 2.0, round_.draw.uniform(0, round_.last)]))
    second = round_.start()
    for driver in (first, second):
        round_.place.end(driver)


def _elsewhere(round_: Round) -> None:
    """A driver is paused until one of another machine takes it for gone; then it wakes up."""
    first = round_.start(machine="a")
    round_.wait(2.0)
    with suppress(ProcessLookupError):
        os.kill(first.pid, signal.SIGSTOP)
    time.sleep(2.6)
    second = round_.start(machine="b", clock=round_.draw.choice([0, 0, -60, 60]))
    round_.wait(3.0)
    with suppress(ProcessLookupError):
        os.kill(first.pid, signal.SIGCONT)
    for driver in (second, first):
        round_.place.end(driver)


def _full_disk(round_: Round) -> None:
    full = [round_.draw.randrange(80), round_.draw.choice([1, 3, 1000])]
    round_.place.end(round_.start(full=full))


def _clock(round_: Round) -> None:
    seconds = round_.draw.choice([-86_400, -60, 60, 86_400, 3.2e7])
    driver = round_.start(jump=[round_.draw.uniform(0, round_.last), seconds])
    second = round_.start(clock=-seconds) if round_.draw.random() < 0.5 else None
    for one in (driver, second):
        if one is not None:
            round_.place.end(one)


def _kill_executor(round_: Round) -> None:
    """Kill an executor while it has tasks of a driver, or before they come."""
    driver = round_.start()
    for _ in range(round_.draw.choice([1, 2])):
        time.sleep(round_.draw.uniform(0, round_.last / 2))
        found = [pid for pid, title in below(os.getpid()).items() if EXECUTOR in title]
        if found:
            with suppress(ProcessLookupError):
                os.kill(round_.draw.choice(sorted(found)), signal.SIGKILL)
    round_.place.end(driver)


def _kill_server(round_: Round) -> None:
    """Kill what serves a driver; after a while it is there again."""
    assert round_.server is not None
    driver = round_.strike()
    round_.server.kill()
    time.sleep(round_.draw.choice([0.0, 1.0, 4.0, 14.0]))
    round_.server.start_again()
    round_.place.end(driver)


def _pause_engine(round_: Round) -> None:
    """What serves a driver answers nothing for a while; in half of the cases Ctrl-C comes then."""
    assert isinstance(round_.server, Engine)
    driver = round_.strike()
    round_.server.pause()
    if round_.draw.random() < 0.5:
        with suppress(ProcessLookupError):
            os.kill(driver.pid, signal.SIGINT)
        round_.place.end(driver)
        round_.server.wake()
        return
    time.sleep(round_.draw.choice([1.0, 4.0, 14.0]))
    round_.server.wake()
    round_.place.end(driver)


def _store(**faults: Any) -> Callable[[Round], None]:
    def strike(round_: Round) -> None:
        assert isinstance(round_.server, S3Server)
        driver = round_.strike()
        round_.server.fail(**faults)
        time.sleep(round_.draw.uniform(1, 5))
        if "busy_every" not in faults:
            round_.server.fail()
        round_.place.end(driver)
        round_.server.fail()

    return strike


def _stop_store(round_: Round) -> None:
    assert isinstance(round_.server, S3Server)
    driver = round_.strike()
    os.kill(round_.server.pid, signal.SIGSTOP)
    time.sleep(round_.draw.choice([1.0, 4.0, 14.0]))
    os.kill(round_.server.pid, signal.SIGCONT)
    round_.place.end(driver)


# On any root and with any launcher.
ANYWHERE: dict[str, Callable[[Round], None]] = {
    "kill driver": _signal(signal.SIGKILL),
    "kill all": _kill_group,
    "kill child": _kill_child(""),
    "terminate": _signal(signal.SIGTERM),
    "hang up": _signal(signal.SIGHUP),
    "interrupt": _signal(signal.SIGINT),
    "pause": _pause,
    "two drivers": _two,
    "elsewhere": _elsewhere,
    "clock": _clock,
}
# Where what they strike is: on a local disk, on S3, with Ray, with Spark or Sail.
FAULTS: dict[str, dict[str, Callable[[Round], None]]] = {
    "local": {**ANYWHERE, "full disk": _full_disk},
    "processes": {**ANYWHERE, "full disk": _full_disk},
    "s3": {
        **ANYWHERE,
        "store busy": _store(busy_every=3),
        "store lies": _store(lie_about="manifest|lease|part-"),
        "store resets": _store(reset=True),
        "store hangs": _store(hang=2.0),
        "store stops": _stop_store,
        "kill store": _kill_server,
    },
    "ray": {
        **ANYWHERE,
        "kill raylet": _kill_child("raylet/raylet"),
        "kill gcs": _kill_child("gcs_server"),
        "kill mailbox": _kill_child("ray::Mailbox"),
        "kill worker": _kill_child("RayTrainWorker"),
    },
    "spark": {**ANYWHERE, "kill spark": _kill_child("java")},
    "executors": {
        **ANYWHERE,
        "kill executor": _kill_executor,
        "kill engine": _kill_server,
        "pause engine": _pause_engine,
    },
    "sail": {**ANYWHERE, "kill engine": _kill_server, "pause engine": _pause_engine},
}
