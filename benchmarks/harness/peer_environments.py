"""Peers live in environments of their own: their pins collide with ours.

`benchmarks/peers/NAME.txt` has a peer's pinned requirements, a first line `# --no-deps` for
packages whose declared dependencies must not come with them. An environment is made once, in
`.peers/NAME/`, and again when its file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
ROOT = BENCHMARKS.parent


def python_of(name: str) -> Path:
    """The Python of a peer's environment, installed where it is not there yet."""
    needs = BENCHMARKS / "peers" / f"{name}.txt"
    text = needs.read_text(encoding="utf-8")
    folder = ROOT / ".peers" / name
    python, sealed = folder / "bin" / "python", folder / "installed.sha256"
    digest = hashlib.sha256(text.encode()).hexdigest()
    if sealed.exists() and sealed.read_text() == digest:
        return python
    print(f"installing {name} into {folder.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
    venv.create(folder, clear=True, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps"] if text.startswith("# --no-deps") else []
    subprocess.run([*pip, *options, "--requirement", str(needs)], check=True, stdout=sys.stderr)
    sealed.write_text(digest)
    return python


def ask(name: str, script: Path, *words: str, **environment: str) -> dict[str, Any]:
    """Run a script in a peer's environment; returns the JSON object that it prints last."""
    done = subprocess.run(
        [str(python_of(name)), str(script), *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
