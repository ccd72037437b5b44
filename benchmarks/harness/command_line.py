"""The command line of a benchmark: a table for people, one flat JSON object last with --json."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from typing import Any

__all__ = ["add_folder", "finish", "parser_of"]


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser with `--json`, described by the first line of the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one flat JSON object last")
    return parser


def add_folder(parser: argparse.ArgumentParser, help: str = "on a local disk") -> None:
    """`--folder`: where large scratch files go; removed at the end."""
    parser.add_argument("--folder", default=tempfile.gettempdir(), help=help)


def finish(args: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Print the figures as one JSON object, where --json asks for it."""
    if args.json:
        print(json.dumps(dict(figures)))
