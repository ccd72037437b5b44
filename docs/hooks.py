"""Hooks of the site's build: folders in the navigation stand for their pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["on_config"]


def on_config(config: Any) -> Any:
    """Replace each `name: folder/` of the navigation by the pages of the folder.

    The folder's `index.md` comes first, the other pages follow by their file names.
    """
    docs = Path(config["docs_dir"])
    config["nav"] = [_expanded(entry, docs) for entry in config["nav"]]
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    ((title, target),) = entry.items()
    if not isinstance(target, str) or not target.endswith("/"):
        return entry
    pages = sorted(path.name for path in (docs / target).glob("*.md") if path.name != "index.md")
    return {title: [f"{target}{name}" for name in ("index.md", *pages)]}
