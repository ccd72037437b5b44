"""Content hashes of every stage of every example, from two checkouts side by side.

    python benchmarks/contents.py [--against CHECKOUT] [--only EXAMPLE ...] [--json]

A change of structure must not change what is computed: with --against, each example is run by
both checkouts (with this Python) over the same log, and stages whose content differs are named;
the exit code is then 1. The shop's log is planted, as the others come from pinned packages.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.command_line import finish, parser_of

HERE = Path(__file__).parents[1]
STAGES = ("events", "vocab", "shards", "train", "export", "index", "evaluate", "report")


def shop_log(folder: Path) -> None:
    """Write `logs/*.jsonl.gz` for examples/shop.toml: 300 visitors of two tastes, 80 products."""
    draw, start = random.Random(5), datetime(2026, 9, 1, tzinfo=UTC)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    for part in range(2):
        lines = [_action(draw, start) for _ in range(6000)]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        (folder / "logs" / f"part-{part}.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))


def _action(draw: random.Random, start: datetime) -> dict[str, str]:
    visitor = draw.randrange(300)
    product = visitor % 2 + 2 * int(40 * draw.random() ** 2)
    at = start + timedelta(seconds=draw.randrange(80 * 86_400))
    action = draw.choices(("view", "cart", "buy", "remove"), (80, 12, 6, 2))[0]
    return {
        "visitor": f"v{visitor}", "sku": f"s{product}", "at": at.isoformat(),
        "action": action, "country": draw.choice(("DE", "AT", "FR")),
    }  # fmt: skip


def contents(checkout: Path, example: str, folder: Path) -> dict[str, str]:
    """Run an example with the code of a checkout in `folder`; content hash by stage."""
    package = "embedmill" if (checkout / "embedmill").is_dir() else "pipeline.cli"
    subprocess.run(
        [
            sys.executable, "-m", package, "run", str(checkout / "examples" / f"{example}.toml"),
            "--set", f'run.root="{folder}/runs"', "--quiet",
        ],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True,
    )  # fmt: skip
    found = {}
    for stage in STAGES:
        path = folder / "runs" / example / stage / "manifest.json"
        found[stage] = json.loads(path.read_text(encoding="utf-8"))["content"]
    return found


def differing(ours: dict[str, str], theirs: dict[str, str]) -> Iterator[str]:
    """Names of `example.stage` whose content differs."""
    yield from (name for name in ours if ours[name] != theirs.get(name))


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    parser.add_argument("--only", nargs="*", default=[], help="names of examples")
    args = parser.parse_args()
    examples = args.only or sorted(path.stem for path in HERE.glob("examples/*.toml"))
    checkouts = [HERE, *([args.against.resolve()] if args.against else [])]
    found: list[dict[str, str]] = []
    for checkout in checkouts:
        flat: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="embedmill-contents-") as scratch:
            shop_log(Path(scratch))
            for example in examples:
                by_stage = contents(checkout, example, Path(scratch))
                flat |= {f"{example}.{stage}": content for stage, content in by_stage.items()}
        found.append(flat)
    changed = list(differing(*found)) if args.against else []
    for name, content in found[0].items():
        print(f"{name:<36} {content[:16]}  {'DIFFERS' if name in changed else ''}".rstrip())
    finish(args, found[0] | {"differing": changed})
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
