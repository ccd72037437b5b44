"""Examples of README.md and docs/: Python runs, configs load, commands and options exist."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from embedmill.jobs.cli import app
from embedmill.pipeline.config import Config, parse
from embedmill.pipeline.config.toml import parse_override, put
from embedmill.pipeline.errors import ConfigError
from embedmill.schemas.stages import STAGES
from tests.support.code_blocks import BLOCKS, PAGES, ROOT, CodeBlock, commands
from tests.support.documented_runs import write_documented_runs

# What Typer raises for words that its commands do not take; it exports a subclass alone.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PYTHON_PAGES = [p for p in PAGES if any(b.language == "python" and b.page == p for b in BLOCKS)]
TOML = [block for block in BLOCKS if block.language == "toml"]
SHELL = [(block, words) for block in BLOCKS if not block.skip for words in commands(block)]
# What a fragment of a config is laid over.
_REST = {
    "run": {"name": "fragment"},
    "events": {"paths": "log.tsv", "time": "time", "weight": "weight"},
    "vocab": {"previous": "published"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the runs and logs that examples name."""
    found = tmp_path_factory.mktemp("documented")
    write_documented_runs(found)
    return found


def test_there_are_examples() -> None:
    assert len(PYTHON_PAGES) >= 2
    assert len(TOML) >= 8
    assert len(SHELL) >= 25
    assert {block.language for block in BLOCKS} <= {"", "python", "sh", "text", "toml"}


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page run one after the other, in one namespace."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "example"}
    for block in BLOCKS:
        if block.page == page and block.language == "python" and not block.skip:
            lines = "\n" * block.line + block.text
            exec(compile(lines, str(page), "exec"), names)


@pytest.mark.parametrize("block", TOML, ids=str)
def test_configs_load(block: CodeBlock) -> None:
    """A complete config loads as it stands, a fragment together with what it leaves out."""
    config_of(tomllib.loads(block.text))


def config_of(tree: Mapping[str, Any]) -> Config:
    complete = "run" in tree and "paths" in tree.get("events", {})
    return parse(tree if complete else over(_REST, tree))


def over(below: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` laid over `below`, section by section."""
    laid = dict(below)
    for key, value in tree.items():
        both = isinstance(value, Mapping) and isinstance(laid.get(key), Mapping)
        laid[key] = over(laid[key], value) if both else value
    return laid


@pytest.mark.parametrize(
    ("block", "words"),
    [(block, words) for block, words in SHELL if words[0] == "embedmill"],
    ids=[f"{b}-{' '.join(w)}" for b, w in SHELL if w[0] == "embedmill"],
)
def test_commands_and_options_exist(block: CodeBlock, words: list[str]) -> None:
    check_command(words)


def check_command(words: list[str]) -> None:
    """Parse the words as `embedmill` does; `--set` names a key, `--from` and `--to` a stage."""
    if words[1].startswith("-"):
        assert words[1] in ("--version", "--help"), f"no option '{words[1]}'"
        return
    assert words[1] in COMMANDS, f"no command '{words[1]}'"
    command = COMMANDS[words[1]]
    found = command.make_context(words[1], words[2:]).params
    tree: dict[str, Any] = over(_REST, {})
    for one in found.get("sets") or []:
        put(tree, *parse_override(one))
    parse(tree)
    for stage in (found.get("first"), found.get("last")) if words[1] == "run" else ():
        assert stage is None or stage in STAGES, f"no stage '{stage}'"


@pytest.mark.parametrize(
    ("block", "words"),
    [(block, words) for block, words in SHELL if words[0] in ("python", "make", "docker/check.sh")],
    ids=[f"{b}-{' '.join(w)}" for b, w in SHELL if w[0] in ("python", "make", "docker/check.sh")],
)
def test_scripts_and_targets_exist(block: CodeBlock, words: list[str]) -> None:
    check_script(words)


def check_script(words: list[str]) -> None:
    """A script is there and knows its options; a target is in the Makefile."""
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in targets:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target '{target}'"
        return
    script = words[1] if words[0] == "python" else words[0]
    if script == "-m":
        assert importlib.util.find_spec(words[2]) is not None, f"no module '{words[2]}'"
        return
    assert (ROOT / script).is_file(), f"no file {script}"
    folder = (ROOT / script).parent
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))
    for option in [word for word in words[2:] if word.startswith("--")]:
        assert f'"{option}"' in source, f"{script} has no option {option}"


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ("embedmill run plays.toml --sets train.dim=8", UsageError, "No such option: --sets"),
        ("embedmill run", UsageError, "Missing parameter: file"),
        ("embedmill run plays.toml --set train.dims=8", ConfigError, r"train\.dims: unknown key"),
        ("embedmill run plays.toml --set dim=8", ConfigError, "'dim=8' is not section.key=value"),
        ("embedmill run plays.toml --from vocabulary", AssertionError, "no stage 'vocabulary'"),
        ("embedmill recommends runs/plays", AssertionError, "no command 'recommends'"),
        ("embedmill --versions", AssertionError, "no option '--versions'"),
    ],
)
def test_a_wrong_command_is_noticed(words: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check_command(words.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("make demos", "no target 'demos'"),
        ("python jobs/alls.py plays.toml", r"no file jobs/alls\.py"),
        ("python jobs/all.py plays.toml --sets train.dim=8", "has no option --sets"),
        ("python -m embedmills", "no module 'embedmills'"),
    ],
)
def test_a_wrong_script_is_noticed(words: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_script(words.split())
