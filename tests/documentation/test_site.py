"""The site: generated pages are current, it builds strictly, and it fetches nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.test_examples import check_command, check_script
from tests.support.code_blocks import ROOT

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]+)?\)")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_generated_pages_are_current() -> None:
    done = run("docs/generate.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_key_has_a_meaning() -> None:
    page = (ROOT / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    keys = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert len(keys) > 150
    assert [key[0] for key in keys if not key[-1].strip(" |")] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    folder = tmp_path_factory.mktemp("site")
    done = run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    pages = (ROOT / "docs").rglob("*.md")
    for page in pages:
        built = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        assert built.is_file(), f"{page} is not built"


def test_the_glossary_is_that_of_contributing(site: Path) -> None:
    shown = (site / "glossary.html").read_text(encoding="utf-8")
    for term in ("raw id", "holdout", "target recall", "tombstone"):
        assert f"<td>{term}</td>" in shown


def test_pages_fetch_nothing(site: Path) -> None:
    fetched = re.compile(r"<(?:link|script|img|iframe)[^>]+(?:href|src)=\"?(https?:[^\"> ]+)")
    for page in site.rglob("*.html"):
        assert fetched.findall(page.read_text(encoding="utf-8")) == [], page


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docker/README.md"])
def test_links_of_the_repository_lead_somewhere(name: str) -> None:
    for target in _LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_commands_of_results_exist(path: Path) -> None:
    for figure in json.loads(path.read_text(encoding="utf-8")):
        words = figure["command"].split()
        check_command(words) if words[0] == "embedmill" else check_script(words)
