"""A driver process for the Ray tests: `train_drive.py FOLDER [key=value ...]`.

Keys are those of [train], values Python's. It prints one JSON object a line: the notes of the
training, and at last the files' hashes or the error.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import embedmill.jobs.train
from embedmill.pipeline.errors import EmbedmillError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run
from tests.support.runs import planted


class Lines(Quiet):
    def note(self, text: str) -> None:
        print(json.dumps({"note": text}), flush=True)


def main(folder: Path, *sets: str) -> int:
    settings: dict[str, Any] = {"launcher": "ray", "workers": 2, "checkpoint_steps": 4}
    for text in sets:
        key, _, value = text.partition("=")
        settings[key] = ast.literal_eval(value)
    run: Run = planted(folder, train=settings)
    try:
        embedmill.jobs.train.build(run, run.writer("train"), Lines())
    except EmbedmillError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}), flush=True)
        return error.exit_code
    hashes = {f.path: f.sha256 for f in run.artifact("train").files() if "part-" in f.path}
    print(json.dumps({"files": hashes}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
