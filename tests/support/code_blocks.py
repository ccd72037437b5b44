"""Code blocks of README.md and docs/, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Records say what was so on their day.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "docker" / "README.md",
    *sorted(
        page
        for page in (ROOT / "docs").rglob("*.md")
        if page.parent.name not in ("decisions", "experiments")
    ),
]
_FENCE = re.compile(
    r"(?:^<!-- example: skip, (?P<skip>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block: its page, the line it begins on, its language, why it is skipped, if so."""

    page: Path
    line: int
    language: str
    text: str
    skip: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[CodeBlock]:
    """Every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        CodeBlock(
            page, text[: m.start("text")].count("\n"), m["language"], m["text"], m["skip"] or ""
        )
        for m in _FENCE.finditer(text)
    ]


def commands(block: CodeBlock) -> Iterator[list[str]]:
    """The words of each command of a shell block, or after a prompt `$ ` in a block of output."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language not in ("sh", "bash"):
            if not line.startswith("$ "):
                continue
            line = line.removeprefix("$ ")
        words = shlex.split(line, comments=True)
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        if words:
            yield words


BLOCKS = [block for page in PAGES for block in blocks(page)]
