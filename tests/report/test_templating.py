"""Templates escape whatever they are given, and nothing turns that off."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

from embedmill.pipeline import report
from embedmill.pipeline.report import templating
from tests.support.report_world import HOSTILE

FOLDER = Path(report.__file__).parent
TEMPLATES = sorted((FOLDER / "templates").rglob("*.html"))


def filled(source: str, **values: object) -> str:
    return templating._environment().from_string(source).render(values)


@given(st.text())
def test_any_text_stays_text(text: str) -> None:
    shown = filled('<p title="{{ text }}">{{ text }}', text=text)
    attribute, body = shown.removeprefix('<p title="').split('">')
    assert attribute == body
    assert not set(body) & set("<>\"'\0\x07")
    controls = {chr(c) for c in (*range(32), 127) if c not in (9, 10)}
    if not set(text) & controls:
        assert Markup(body).unescape() == text


@pytest.mark.parametrize("text", HOSTILE)
def test_titles_are_text_in_every_filter_that_makes_markup(text: str) -> None:
    for name in ("item_title", "embedded_json"):
        shown = filled("{{ text | " + name + " }}", text=text)
        inner = shown.removeprefix("<bdi>").removesuffix("</bdi>")
        assert not set(inner) & set("<>\x07")


def test_a_macro_escapes_its_arguments() -> None:
    source = '{% import "macros.html" as m %}{{ m.meanings([(text, text)]) }}'
    shown = filled(source, text="<b>")
    assert shown == '<ul class="meanings"><li><b>&lt;b&gt;</b> &lt;b&gt;</li></ul>'


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_turns_escaping_off(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe|autoescape|Markup", source)
    # An attribute without quotes would end at a space.
    assert not re.search(r"<[^<>]*=\{\{", re.sub(r"\{%.*?%\}", "", source, flags=re.S))


def test_markup_is_made_of_constants_and_of_what_templates_give() -> None:
    """Each place is listed, so that a new one is looked at."""
    places = {
        f"{path.relative_to(FOLDER)}: {call}"
        for path in FOLDER.rglob("*.py")
        for call in re.findall(r"Markup\(.*", path.read_text(encoding="utf-8"))
    }
    assert places == {
        "templating.py: Markup(_environment().get_template(template).render(values))",
        'templating.py: Markup(path.read_text(encoding="utf-8").strip())',
        'formatting.py: Markup("<bdi>{}</bdi>").format(without_controls(shown) or "(empty)")',
        "formatting.py: Markup(text)",  # JSON, tested for what could end its element
        "charts/line_charts.py: Markup()",
    }


def test_a_name_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="nothing"):
        filled("{{ nothing }}")


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("<p>\n  two\n  words\n</p>", "<p>two words</p>"),
        ("<p>\n  {{ a }}\n  {{ a }}\n</p>", "<p>x\ny x\ny</p>"),
        ("{% if true %}\n  <i></i>\n{% endif %}\n<b></b>", "<i></i><b></b>"),
        ("{# why #}\n<i></i>", "<i></i>"),
        ("<pre>{{ a }}</pre>", "<pre>x\ny</pre>"),
    ],
)
def test_line_breaks_of_templates_do_not_reach_the_page(source: str, want: str) -> None:
    assert filled(source, a="x\ny") == want


def test_every_template_is_package_data() -> None:
    project = tomllib.loads((FOLDER.parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["embedmill.pipeline.report"]
    packaged = {path for pattern in patterns for path in FOLDER.glob(pattern) if path.is_file()}
    assert packaged == {path for path in (FOLDER / "templates").rglob("*") if path.is_file()}
