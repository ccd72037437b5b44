# ruff: noqa: E402
"""A node joins while training runs on Ray: it must go on with two workers, to the same tables.

    python -m tests.support.resize [EPOCHS]

Too slow for the suite, as Ray looks for more room once a minute: there must be epochs for longer
(3000). Starts a Ray of one CPU on loopback, trains with train.workers = "1-2", adds a node, and
compares with an undisturbed run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent

import torch

from embedmill.pipeline import train
from embedmill.pipeline.log import Quiet
from tests.support.runs import planted
from tests.support.trained import tables

RAY = str(Path(sys.executable).with_name("ray"))
ADDRESS = "127.0.0.1:6411"
EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
LONG = {"epochs": EPOCHS, "patience": 0, "dim": 8, "checkpoint_steps": 4}


def node(folder: str, *options: str) -> subprocess.Popen[bytes]:
    """A Ray node of one CPU."""
    command = [RAY, "start", "--block", "--num-cpus=1", "--disable-usage-stats", *options]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "HOME": folder}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="rz-", dir="/tmp") as folder:
        nodes = [node(folder, "--head", "--node-ip-address=127.0.0.1", "--port=6411",
                      f"--temp-dir={folder}/a", "--include-dashboard=false")]  # fmt: skip
        paths = str(HERE.parents[1])
        sets = [f"{k}={v}" for k, v in LONG.items()]
        variables = {"RAY_ADDRESS": ADDRESS, "RAY_AUTH_MODE": "disabled", "HOME": folder}
        try:
            for _ in range(60):
                asked = [RAY, "status", f"--address={ADDRESS}"]
                environment = {**os.environ, **variables}
                if not subprocess.run(asked, env=environment, capture_output=True).returncode:
                    break
            driver = subprocess.Popen(
                [
                    sys.executable, str(HERE / "train_drive.py"), f"{folder}/run",
                    "workers='1-2'", *sets,
                ],
                env={**os.environ, "PYTHONPATH": paths, **variables},
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert driver.stdout is not None
            for text in driver.stdout:
                if "epoch 3/" in text:
                    nodes.append(node(folder, f"--address={ADDRESS}"))
                elif "resumed" in text:
                    print(text.strip(), flush=True)
            driver.wait()
        finally:
            for one in reversed(nodes):
                one.terminate()
                one.wait(60)
        run = planted(f"{folder}/run", train={**LONG, "launcher": "ray"})
        lines = run.artifact("train").read("log.jsonl").decode().splitlines()
        starts = [one for one in map(json.loads, lines) if one["kind"] == "start"]
        print("workers:", [one["workers"] for one in starts])
        calm = planted(f"{folder}/calm", train=LONG)
        train.build(calm, calm.writer("train"), Quiet())
        expected = tables(calm)
        apart = max(float((t - expected[n]).abs().max()) for n, t in tables(run).items())
        print(f"tables are {apart:.2g} apart at most")
        return 0 if starts[-1]["workers"] == 2 and apart < 0.05 else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
