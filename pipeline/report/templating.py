"""Templates of the page, filled in with every value escaped.

The templates are package data, in `templates/`. Autoescaping is on for all of them: text gets
onto the page as text whatever it holds, and only `Markup` (what a template or this package made)
gets there as HTML.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.ext import Extension
from markupsafe import Markup

from embedmill.pipeline.report import formatting

__all__ = ["Section", "asset", "make_section", "render"]

_PACKAGE = "embedmill.pipeline.report"
_FOLDER = "templates"


@dataclass(frozen=True)
class Section:
    """A section of the page: its id, its name in the navigation, and its HTML."""

    anchor: str
    link: str
    html: Markup


def render(template: str, **values: Any) -> Markup:
    """A template, filled in.

    Args:
        template: path below `templates/`.
        values: what the template names; a name that is not given raises UndefinedError.
    """
    return Markup(_environment().get_template(template).render(values))


def make_section(anchor: str, link: str, template: str, **values: Any) -> Section:
    """A section of the page from a template, which is given `anchor` beside the values.

    Args:
        anchor: the section's id.
        link: its name in the navigation.
        template: path below `templates/`.
        values: what else the template names.
    """
    return Section(anchor, link, render(template, anchor=anchor, **values))


def asset(name: str) -> Markup:
    """The style sheet or the script, as it is."""
    path = resources.files(_PACKAGE) / _FOLDER / name
    return Markup(path.read_text(encoding="utf-8").strip())


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(_PACKAGE, _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=formatting.without_controls,
        extensions=[_OneLine],
        auto_reload=False,
    )
    environment.filters.update(formatting.FILTERS)
    return environment


class _OneLine(Extension):
    """Leaves the line breaks and the indentation of templates out of the page.

    A line break next to a tag or a statement is dropped, one between words or values becomes a
    space. Values are filled in later and keep theirs.
    """

    _BESIDE_MARKUP = re.compile(r"(?:(?<=>)|(?<=[%#]\}))\s*\n\s*|\s*\n\s*(?=<|\{[%#])")
    _BETWEEN_WORDS = re.compile(r"\s*\n\s*")

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """The source of a template on one line."""
        return self._BETWEEN_WORDS.sub(" ", self._BESIDE_MARKUP.sub("", source.strip()))
