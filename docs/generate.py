"""Write the pages that are generated: the config, the command line, the benchmarks.

    python docs/generate.py          writes docs/reference/*.md and docs/benchmarks.md
    python docs/generate.py --check  exits 1, naming them, if committed pages are not current

The config's page comes from the pydantic models in `pipeline/config/`, the command line's from
the Typer app in `jobs/cli/`, the benchmarks' from `benchmarks/results/*.json`.
"""

from __future__ import annotations

import argparse
import datetime
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import annotated_types
import typer.main
from pydantic import BaseModel, BeforeValidator, TypeAdapter
from pydantic.fields import FieldInfo

from embedmill.jobs.cli import app
from embedmill.pipeline.config import (
    AutoConfig,
    CclConfig,
    Config,
    IalsConfig,
    Item2VecConfig,
    SmoothingConfig,
    SpectralConfig,
    TrainConfig,
)
from embedmill.pipeline.config.objectives import OBJECTIVE_KEYS
from embedmill.schemas.stages import STAGES

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
_NOTE = "<!-- Written by docs/generate.py from {source}: change that, then run `make docs`. -->\n"


def main() -> int:
    """Write the pages, or check them; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the generated pages of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing, name stale pages")
    check = parser.parse_args().check
    stale = []
    for path, text in pages().items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path.relative_to(DOCS.parent)))
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"not current: {', '.join(stale)}; run `make docs` and commit them")
    return int(check and bool(stale))


def pages() -> dict[Path, str]:
    """The text of every generated page by its path."""
    return {
        DOCS / "reference" / "config.md": config_page(),
        DOCS / "reference" / "cli.md": cli_page(),
        DOCS / "benchmarks.md": benchmarks_page(),
    }


# --- config -----------------------------------------------------------------------------------


def config_page() -> str:
    """One section for each table of the TOML, one row for each key."""
    lines = [
        _NOTE.format(source="pipeline/config/"),
        "# Config",
        "",
        "One TOML file describes one run. Unknown keys are refused, with the nearest known one. "
        "`--set section.key=value` on a command overrides a key. `embedmill config FILE` prints "
        "every key with its value.",
        "",
        "**Stages** are those that have the key in their fingerprint: if you change it, they and "
        "all stages that depend on them are stale. A key without stages changes where or how fast "
        "something runs, never what comes out; it is not in any fingerprint.",
    ]
    for path, model in sections(Config, ""):
        if path not in _TRAIN_SECTIONS:
            keys = {name: field for name, field in _keys(model) if path != "train" or _shared(name)}
            text = _TRAIN_TEXT if path == "train" else inspect.cleandoc(model.__doc__ or "")
            lines += _section(path, text, keys)
        if path == "train":
            lines += _objectives()
    lines += ["", "## `[vars]`", "", _VARS_TEXT]
    return "\n".join(lines) + "\n"


_VARS_TEXT = """\
Variables with their defaults, such as `ds = "2026-11-22"`: strings, whole numbers and dates, with
names of letters, digits and `_`. `{ds}` in any string of the config is replaced by the value of
`--var ds=...`, else of the environment (`EMBEDMILL_VAR_DS`), else by the default. Strings with
their values in place are in the fingerprints; the variables themselves are not. See
[a run for a date](../guides/nightly.md#a-run-for-a-date)."""


def _section(path: str, text: str, keys: Mapping[str, FieldInfo], objective: str = "") -> list[str]:
    title = f"`[{path}]` for `{objective}`" if objective else f"`[{path}]`"
    lines = ["", f"## {title}", "", text.replace("<", "&lt;"), ""]
    lines += ["| key | type | default | stages | meaning |", "|---|---|---|---|---|"]
    return lines + [_row(path, name, field, objective) for name, field in keys.items()]


_TRAIN_TEXT = """\
Keys that every objective reads, and those of training by steps. The other keys stand in the
section of the objective; a key that the objective does not read is refused."""
# In the TOML the keys of these models stand in the sections of the objectives that read them.
_TRAIN_SECTIONS = {
    "train.auto",
    "train.smoothing",
    "train.ials",
    "train.ccl",
    "train.item2vec",
    "train.spectral",
}
_TRAIN_FIELDS = {
    **dict(TrainConfig.model_fields),
    **{
        name: field
        for model in (AutoConfig, IalsConfig, CclConfig, Item2VecConfig, SpectralConfig)
        for name, field in model.model_fields.items()
    },
    **{f"smoothing.{name}": field for name, field in SmoothingConfig.model_fields.items()},
}


def _shared(name: str) -> bool:
    """Whether a field of `TrainConfig` stands in [train] itself."""
    return all(name not in keys.own for keys in OBJECTIVE_KEYS.values())


def _objectives() -> Iterator[str]:
    """The section of each objective, as it stands in the TOML."""
    for objective, keys in OBJECTIVE_KEYS.items():
        section = [key for key in keys.own if key != "smoothing"]
        if "smoothing" in keys.own:
            section += [f"smoothing.{name}" for name in SmoothingConfig.model_fields]
        others = [key for key in _STEP_KEYS if key not in keys.shared]
        text = f'Read with `train.objective = "{objective}"`.'
        if others:
            text += f" Of `[train]` it does not read {', '.join(f'`{key}`' for key in others)}."
        changed = {key: value for key, value in keys.defaults.items() if key not in keys.own}
        if changed:
            shown = ", ".join(f"`{key} = {_as_toml(v)[1:-1]}`" for key, v in changed.items())
            text += f" Defaults of `[train]` that are other ones here: {shown}."
        fields = {key: _TRAIN_FIELDS[key] for key in section}
        yield from _section(f"train.{keys.section}", text, fields, objective)


_STEP_KEYS = dict.fromkeys(key for keys in OBJECTIVE_KEYS.values() for key in keys.shared)


def sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every (path, model) below `model`, in the order of the fields; a parent before its own."""
    for name, field in model.model_fields.items():
        for inner in models_of(field.annotation):
            yield f"{prefix}{name}", inner
            yield from sections(inner, f"{prefix}{name}.")


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field may hold: one for a section, several for a union of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for arg in typing.get_args(annotation) for model in models_of(arg)]
    return []


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if not models_of(field.annotation):
            yield name, field


def _row(section: str, name: str, field: FieldInfo, objective: str = "") -> str:
    default = "required" if field.is_required() else _as_toml(field.default)
    if objective and name in OBJECTIVE_KEYS[objective].defaults:
        default = _as_toml(OBJECTIVE_KEYS[objective].defaults[name])
    stages = ", ".join(stages_of(f"{section}.{name}", field)) or "–"
    return _cells(f"`{name}`", _type_of(field), default, stages, field.description or "")


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def stages_of(key: str, field: FieldInfo) -> list[str]:
    """Stages that have `key` in their fingerprint."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra.get("in_fingerprint") is False:
        return []
    return [
        stage
        for stage, contract in STAGES.items()
        if any(key == one or key.startswith(f"{one}.") for one in contract.fields)
    ]


_NAMES = {str: "string", int: "integer", float: "number", bool: "true or false"}


def _type_of(field: FieldInfo) -> str:
    name = _type_name(field.annotation)
    if name == "list of strings" and any(isinstance(m, BeforeValidator) for m in field.metadata):
        name = "string or list of strings"
    return ", ".join([name, *filter(None, map(_bound, field.metadata))])


def _type_name(annotation: Any) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _NAMES:
        return _NAMES[annotation]
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is typing.Literal:
        return " or ".join(_as_toml(one) for one in args)
    if origin is tuple:
        return f"list of {_plural(args[0])}"
    if origin in (dict, Mapping):
        return f"table of {_plural(args[1])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(one) for one in args if one is not type(None))
    raise TypeError(f"no words for the type {annotation!r} of a config key")


def _plural(annotation: Any) -> str:
    name = _type_name(annotation)
    return name if name.startswith("list") else f"{name}s"


def _bound(metadata: Any) -> str:
    for kind, name, sign in (
        (annotated_types.Ge, "ge", "≥"),
        (annotated_types.Gt, "gt", ">"),
        (annotated_types.Le, "le", "≤"),
        (annotated_types.Lt, "lt", "<"),
    ):
        if isinstance(metadata, kind):
            return f"{sign} {getattr(metadata, name)}"
    return ""


def _as_toml(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Mapping):
        return "`{}`" if not value else f"`{dict(value)}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


# --- command line -----------------------------------------------------------------------------


def cli_page() -> str:
    """One section for each command, with its usage, its help and its options."""
    root: Any = typer.main.get_command(app)
    lines = [_NOTE.format(source="jobs/cli/"), "# Command line", "", root.help, "", root.epilog, ""]
    lines += ["[Errors and exit codes](../guides/errors.md) says more about them."]
    for name, command in root.commands.items():
        context = command.context_class(command, info_name=f"embedmill {name}")
        usage = " ".join(command.get_usage(context).removeprefix("Usage:").split())
        lines += ["", f"## `embedmill {name}`", "", "```", usage, "```", ""]
        lines += [inspect.cleandoc(command.help), ""]
        lines += ["| argument or option | default | meaning |", "|---|---|---|"]
        lines += [_parameter(one, context) for one in command.params]
    return "\n".join(lines) + "\n"


def _parameter(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        names = parameter.metavar
    else:
        names = parameter.get_help_record(context)[0]
    default = "required" if parameter.required else ""
    if parameter.default not in (None, "", False):
        default = f"`{parameter.default}`"
    return _cells(f"`{names}`", default, parameter.help)


# --- benchmarks -------------------------------------------------------------------------------


class Figure(BaseModel, extra="forbid", frozen=True):
    """One measured figure; benchmarks/results/README.md explains the keys."""

    setup: str
    name: str
    value: float | None
    unit: str
    peer: str | None
    peer_value: float | None
    ratio: float | None
    command: str
    date: datetime.date
    machine: str
    versions: dict[str, str]
    note: str
    recorded: typing.Literal["measured", "transcribed"]


_FIGURES = _NOTE.format(source="benchmarks/results/*.json").replace("Written", "Below: written")
_TOPICS = {
    "quality": "Quality",
    "training": "Speed and memory of training",
    "data-stages": "Data stages",
    "index": "The nearest-neighbour index",
    "retrieval": "Retrieval",
    "reliability": "Reliability",
}


def figures(topic: str) -> list[Figure]:
    """The figures of `benchmarks/results/TOPIC.json`."""
    text = (RESULTS / f"{topic}.json").read_text(encoding="utf-8")
    return TypeAdapter(list[Figure]).validate_json(text)


def benchmarks_page() -> str:
    """The page's own text up to `_FIGURES`, then a section for each topic."""
    head, _, _ = (DOCS / "benchmarks.md").read_text(encoding="utf-8").partition(_FIGURES)
    lines = [head + _FIGURES]
    for topic, title in _TOPICS.items():
        found = figures(topic)
        lines += ["", f"## {title}"]
        for setup, group in groupby(found, key=lambda one: one.setup):
            lines += _group(setup, list(group))
        machines = "; ".join(dict.fromkeys(one.machine for one in found))
        lines += ["", f"Machine: {machines}. Packages: {_versions(found)}."]
    return "\n".join(lines) + "\n"


def _group(setup: str, found: list[Figure]) -> list[str]:
    lines = ["", f"### {setup}", "", "| measured | figure | beside | ratio |", "|---|---|---|---|"]
    lines += [_figure_row(one) for one in found]
    commands = " · ".join(dict.fromkeys(f"`{one.command}`" for one in found))
    notes = dict.fromkeys(one.note for one in found if one.note)
    return [*lines, "", f"{commands} · {found[0].date}", *(f"· {note}" for note in notes)]


def _figure_row(one: Figure) -> str:
    figure = "–" if one.value is None else f"{_number(one.value)} {_unit(one)}"
    peer = one.peer or ""
    if one.peer_value is not None:
        peer += f": {_number(one.peer_value)}"
    ratio = f"{_number(one.ratio)}×" if one.ratio is not None else "–" if peer else ""
    return _cells(one.name, figure.strip(), peer, ratio)


def _unit(figure: Figure) -> str:
    """The unit, where the name of the figure does not say it already."""
    return "" if figure.unit in figure.name or "share" in figure.unit else figure.unit


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.6g}"


def _versions(found: list[Figure]) -> str:
    seen: dict[str, set[str]] = {}
    for one in found:
        for package, version in one.versions.items():
            seen.setdefault(package, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(seen[name]))}" for name in sorted(seen))


if __name__ == "__main__":
    sys.exit(main())
