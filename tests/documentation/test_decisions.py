"""Decision records are complete, listed and linked both ways, and every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
RECORDS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
PAGES = sorted([*(DOCS / "decisions").glob("*.md"), *(DOCS / "experiments").glob("*.md")])
_STATUS = re.compile(
    r"^Status: (accepted|deprecated|superseded by \[(\d{4})\]\((\d{4}-[a-z0-9-]+\.md)\))$", re.M
)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def _anchors(page: Path) -> set[str]:
    """Anchors of headings, as Python-Markdown's `toc` makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    plain = (re.sub(r"[`*]", "", head) for head in heads)
    kept = (re.sub(r"[^\w\s-]", "", head).strip().lower() for head in plain)
    return {re.sub(r"[-\s]+", "-", head) for head in kept}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_record_is_complete(record: Path) -> None:
    text, number = record.read_text(encoding="utf-8"), record.name[:4]
    assert text.startswith(f"# {number}. ")
    assert re.search(r"^Date: 2\d{3}-\d\d-\d\d", text, re.M)
    for section in ("Context", "Decision", "Consequences"):
        assert f"\n## {section}\n" in text, section
    status = _STATUS.search(text)
    assert status, "no status"
    if status[2]:
        later = (record.parent / status[3]).read_text(encoding="utf-8")
        assert status[3].startswith(status[2])
        assert re.search(rf"^Supersedes: .*\({re.escape(record.name)}\)", later, re.M)


def test_the_index_lists_every_record_with_its_status() -> None:
    assert [record.name[:4] for record in RECORDS] == [
        f"{number:04d}" for number in range(1, len(RECORDS) + 1)
    ]
    lines = (DOCS / "decisions" / "index.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| [0")]
    assert [row[0] for row in rows] == [f"| [{r.name[:4]}]({r.name})" for r in RECORDS]
    for row, record in zip(rows, RECORDS, strict=True):
        status = _STATUS.search(record.read_text(encoding="utf-8"))
        assert status
        assert row[2] == status[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        if path.startswith("http"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{path}: no such page"
        assert not anchor or anchor in _anchors(target), f"{path}#{anchor}: no such heading"
