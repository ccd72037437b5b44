"""Commands on files that somebody has changed on purpose, in a process that is watched.

    python -m tests.support.hostile FOLDER LOG SEED COUNT

Each case changes a file of a copy of FOLDER (with its sha256 in the manifest, as somebody would who
can write there, or without), and calls a command. Its name is printed before, so that a process
that dies names it; what was found is printed as JSON, one line each. At the end comes the greatest
resident memory.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import re
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from embedmill.jobs import cli
from embedmill.pipeline.config import parse, to_toml
from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.store.run import open_run
from tests.support.artifacts import reseal
from tests.support.worlds import config_tree, laid

__all__ = ["main"]

SECONDS = 60.0  # that a command may take on a busy machine
ADDRESSES = 12 << 30  # bytes of address space
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 8}

# Events of Python that no reader has a reason for.
FORBIDDEN = {
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system",
    "pickle.find_class", "socket.connect", "subprocess.Popen", "marshal.loads", "ctypes.dlopen",
}  # fmt: skip
# Packages whose functions the embedded engine gets from this process, pickled.
ENGINE = {"embedmill", "functools", "pyspark"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}


class Watch:
    """An audit hook (PEP 578) that notes what a reader must not do."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self.allowed, self.noted, self.on = tuple(allowed), list[str](), False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, words: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN and not self._is_own(event, words):
            self.noted.append(f"{event} {words!r:.200}")
        elif event in CHANGES or _writes(event, words):
            # rmtree removes what it names relative to an open folder.
            folder = words[1] if event in ("os.remove", "os.rmdir") else -1
            self._look(event, words[0], f"/proc/self/fd/{folder}" if folder >= 0 else "")

    def _look(self, event: str, path: Any, folder: str) -> None:
        if isinstance(path, (str, bytes)):
            place = os.path.realpath(os.path.join(folder, os.fsdecode(path)))
            if not place.startswith(self.allowed):
                self.noted.append(f"{event} {place}")

    @staticmethod
    def _is_own(event: str, words: tuple[Any, ...]) -> bool:
        """Whether Python imports a module, or the embedded engine is sent its tasks."""
        if event == "pickle.find_class":
            return words[0].partition(".")[0] in ENGINE
        if event == "socket.connect":
            return words[1][0] == "127.0.0.1"
        frame: Any = sys._getframe(1)
        while frame is not None:
            if "importlib" in frame.f_code.co_filename:
                return event in ("marshal.loads", "ctypes.dlopen")
            frame = frame.f_back
        return False


def _writes(event: str, words: tuple[Any, ...]) -> bool:
    return event == "open" and isinstance(words[2], int) and bool(words[2] & WRITES)


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 4, 32])):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _splice(data: bytes, draw: random.Random) -> bytes:
    first, last = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + data[last:] + data[first:last]


def _large(data: bytes, draw: random.Random) -> bytes:
    """Some bytes as those of large numbers."""
    if len(data) < 8:
        return b"\xff" * 8
    at = draw.randrange(len(data) - 7)
    return data[:at] + draw.choice([b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"\0" * 8]) + data[at + 8 :]


def _numbers(data: bytes, draw: random.Random) -> bytes:
    """A number of a text as another one."""
    found = list(re.finditer(rb"-?[0-9]+(\.[0-9]+)?", data))
    if not found:
        return _flip(data, draw)
    one = draw.choice(found)
    other = draw.choice([b"-1", b"0", b"1e999", b"9" * 400, b"1.5", b"null", b"NaN", b"2147483648"])
    return data[: one.start()] + other + data[one.end() :]


def _words(data: bytes, draw: random.Random) -> bytes:
    """A text of a JSON file as one that leads elsewhere."""
    found = list(re.finditer(rb'"[^"\\\n]*"', data))
    if not found:
        return _flip(data, draw)
    one = draw.choice(found)
    other = draw.choice(["../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "", "\\u0000",
                         "http://[::1]:9/x", "x" * 100_000, "tiny/..", "{ds}"])  # fmt: skip
    return data[: one.start()] + json.dumps(other).encode() + data[one.end() :]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda data, draw: b"",
    "cut": lambda data, draw: data[: draw.randrange(len(data) + 1)],
    "flip": _flip,
    "splice": _splice,
    "large": _large,
    "numbers": _numbers,
    "words": _words,
    "twice": lambda data, draw: data + data,
    "random": lambda data, draw: draw.randbytes(min(len(data), 4096)),
    "deep": lambda data, draw: b'{"a":' * 50_000,
}


def commands(root: str, output: str, toml: str) -> list[list[str]]:
    """Commands that read runs, with those that go on with one."""
    one, two = f"{root}/n0", f"{root}/n1"
    return [
        ["status", two], ["status", two, "--json"], ["metrics", two], ["verify", two],
        ["diff", one, two], ["list", root], ["gc", root, "--keep", "1"],
        ["recommend", root, "--user", "u3"], ["recommend", two, "--user", "u3"],
        ["neighbors", two, "--item", "i4"],
        ["export", two, "--format", "npy", "--output", output, "--overwrite"],
        ["export", two, "--format", "word2vec", "--output", output, "--overwrite"],
        ["delta", two, "--since", one, "--output", f"{output}-delta"],
        ["publish", two], ["rollback", root],
        ["run", toml, "--quiet"], ["run", toml, "--quiet", "--from", "export", "--rebuild"],
        ["run", toml, "--quiet", "--from", "shards", "--rebuild"],
    ]  # fmt: skip


def call(words: Sequence[str]) -> tuple[int, str]:
    """Exit code, and what is said, of a command that is called in this process."""
    said = io.StringIO()
    sys.argv = ["embedmill", *words]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 70
    return code, said.getvalue()


def change_run(place: Path, draw: random.Random) -> str:
    """Change a file of the runs below a folder; what was done."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    suffix = draw.choice(sorted({path.suffix for path in files} - {".html", ".toml", ".part"}))
    path = draw.choice([path for path in files if path.suffix == suffix])
    name, data = draw.choice(sorted(MUTATIONS)), path.read_bytes()
    path.write_bytes(MUTATIONS[name](data, draw))
    said = f"{path.relative_to(place)} {name}"
    # FAISS is not made for hostile bytes: see the page on trust.
    if path.suffix not in (".json", ".faiss") or (draw.random() < 0.3 and path.suffix == ".json"):
        run, _, rest = str(path.relative_to(place)).partition("/")
        stage, _, inner = rest.partition("/")
        with contextlib.suppress(EmbedmillError, OSError, ValueError, StopIteration):
            reseal(open_run(f"{place}/{run}").artifact(stage), inner)
            said += " resealed"
    return said


def change_log(place: Path, log: Path, draw: random.Random) -> tuple[str, list[str]]:
    """A log in one of several forms, changed; what was done, and the command that reads it."""
    import zstandard

    text, form = log.read_bytes(), draw.choice(["tsv", "csv", "jsonl", "gz", "zst", "parquet"])
    if form == "csv":
        data = text.replace(b"\t", b",")
    elif form in ("jsonl", "parquet"):
        head, *rows = (line.split("\t") for line in text.decode().splitlines())
        lines = [json.dumps(dict(zip(head, row, strict=True))) for row in rows]
        data = "\n".join(lines).encode()
        if form == "parquet":
            import pyarrow.json as pj
            import pyarrow.parquet as pq

            out = io.BytesIO()
            pq.write_table(pj.read_json(io.BytesIO(data)), out)
            data = out.getvalue()
    else:
        data = gzip.compress(text) if form == "gz" else text
        data = zstandard.compress(text) if form == "zst" else data
    name = draw.choice(sorted(MUTATIONS))
    if form in ("gz", "zst") and draw.random() < 0.2:  # a bomb
        name, zeros = "bomb", b"a" * (64 << 20)
        data = gzip.compress(zeros, 1) if form == "gz" else zstandard.compress(zeros)
    else:
        data = MUTATIONS[name](data, draw)
    path = place / f"log.{'tsv.' if form in ('gz', 'zst') else ''}{form}"
    path.write_bytes(data)
    config = parse(laid(config_tree(place / "logs", path), events={"max_rejects": 1.0}))
    toml = place / "log.toml"
    toml.write_text(to_toml(config))
    return f"log {form} {name}", ["run", str(toml), "--quiet", "--to", "vocab"]


def cases(folder: Path, log: Path, seed: int, count: int) -> Iterator[tuple[str, list[str], Path]]:
    """Names of cases, their commands, and their folders, which are removed afterwards."""
    for number in range(seed, seed + count):
        draw = random.Random(number)
        place = folder.parent / f"case-{os.getpid()}-{number}"
        shutil.copytree(folder, place)
        if draw.random() < 0.15:
            said, words = change_log(place, log, draw)
        else:
            said = change_run(place, draw)
            toml = place / "n1.toml"
            text = toml.read_bytes().replace(b"ROOT", os.fsencode(place))
            toml.write_bytes(text)
            words = draw.choice(commands(str(place), f"{place}-out", str(toml)))
        yield f"{number} {said}: {' '.join(words[:1] + words[2:])}", words, place
        shutil.rmtree(place)
        for rest in folder.parent.glob(f"{place.name}-out*"):
            shutil.rmtree(rest, ignore_errors=True)


def main(folder: Path, log: Path, seed: int, count: int) -> None:
    """Run cases and print what was found."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    own = [str(folder.parent), "/dev/", "/proc/", os.path.realpath(os.environ["EMBEDMILL_CACHE"])]
    watch = Watch([*own, os.path.realpath(os.environ["TMPDIR"])])
    for name, words, _ in cases(folder, log, seed, count):
        print(f"case {name}", flush=True)
        began, watch.on = time.monotonic(), True
        code, said = call(words)
        watch.on = False
        took = time.monotonic() - began
        wrong = list(watch.noted)
        watch.noted.clear()
        if code not in CODES or "Traceback" in said:
            wrong.append(f"exit {code}: {said[-1500:]}")
        if took > SECONDS:
            wrong.append(f"took {took:.0f} s")
        for one in wrong:
            print(f"found {json.dumps({'case': name, 'what': one})}", flush=True)
    print(f"peak {peak_mib()}", flush=True)


def peak_mib() -> int:
    """The most memory that this process had resident, in MiB.

    `ru_maxrss` would be that of the process that started this one, if that has more.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
