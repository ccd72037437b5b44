"""Keys that have another name by now; the old one is still read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["RENAMED", "renamed_path", "renamed_tree"]

# Old path → new path, in the same section. Fingerprints keep the old name, which the field gives
# as its `fingerprint_name`.
RENAMED: dict[tuple[str, ...], tuple[str, ...]] = {
    ("events", "signals", "max_user_day"): ("events", "signals", "max_user_events_per_day"),
    ("train", "item2vec", "per_pair"): ("train", "item2vec", "negatives_per_pair"),
    ("train", "ials", "block"): ("train", "ials", "block_size"),
}


def renamed_path(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path of a key by its name of today."""
    return RENAMED.get(path, path)


def renamed_tree(
    tree: Mapping[str, Any], note: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """A copy of the tree with all keys by their names of today.

    Args:
        tree: the sections of a config.
        note: called with a sentence for each key that has an old name.

    Returns:
        the tree, and a sentence for each key that is given by both names.
    """
    named, problems = copy.deepcopy(dict(tree)), list[str]()
    for old, new in RENAMED.items():
        section: Any = named
        for key in old[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, dict) or old[-1] not in section:
            continue
        if new[-1] in section:
            problems.append(f"{'.'.join(old)}: given twice, also as {'.'.join(new)}")
            del section[old[-1]]
            continue
        section[new[-1]] = section.pop(old[-1])
        note(f"{'.'.join(old)} is now {'.'.join(new)}")
    return named, problems
