"""What a package requires, one requirement a line: requirements.py PYPROJECT [EXTRA,...]

For an image layer that holds what the package needs without the package: a change of the source
does not install it again.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], extras: list[str]) -> Iterator[str]:
    """Of the package and of some of its extras; an extra may name others of the same package.

    Args:
        project: table `project` of a pyproject.toml.
        extras: names.

    Raises:
        KeyError: there is no such extra.
    """
    yield from project["dependencies"]
    own = f"{project['name']}["
    left = list(extras)
    while left:
        for requirement in project["optional-dependencies"][left.pop()]:
            if requirement.startswith(own):
                left += requirement.removeprefix(own).removesuffix("]").split(",")
            else:
                yield requirement


if __name__ == "__main__":
    path, *words = sys.argv[1:]
    read = tomllib.loads(Path(path).read_text(encoding="utf-8"))["project"]
    print(*requirements(read, [word for word in ",".join(words).split(",") if word]), sep="\n")
