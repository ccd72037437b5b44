"""The page: sections in order, one stylesheet, one script, nothing from the network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from embedmill.pipeline.report import activity, catalogue, intake, quality, sections
from embedmill.pipeline.report.wording import escape, figure, plural, seconds, title

__all__ = ["document", "render"]

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle "
    "cx='5' cy='10' r='4' fill='%230f766e'/%3E%3Ccircle cx='12' cy='4' r='3' fill='%23c2640c'/%3E"
    "%3C/svg%3E"
)
_LINKS = {
    "line": "Line",
    "data": "Data",
    "activity": "Time",
    "ids": "Users and items",
    "previous": "Previous run",
    "splits": "Split",
    "training": "Training",
    "metrics": "Metrics",
    "slices": "Slices",
    "index": "Index",
    "map": "Map",
    "neighbours": "Neighbours",
    "bias": "Best and worst",
}


def render(data: Mapping[str, Any], times: Mapping[str, Any], labels: int) -> str:
    """The whole page as HTML.

    Args:
        data: what `data.json` holds.
        times: what depends on the machine, from `figures.times`.
        labels: items to label on the map.
    """
    body = "".join(
        (
            sections.headline(data, times),
            catalogue.atlas(data, labels),
            catalogue.neighbours(data),
            catalogue.extremes(data),
            quality.metrics(data),
            quality.slices(data),
            quality.index(data, times),
            quality.training(data, times),
            sections.line(data, times),
            intake.ingested(data),
            activity.activity(data["log"]),
            activity.who(data["log"]),
            activity.continued(data["log"]),
            intake.splits(data),
        )
    )
    lede = _lede(data, times)
    return document(data["title"], lede, body, sections.footer(data, times, "evaluated"))


def document(name: str, lede: str, body: str, footer: str) -> str:
    """A page on its own: nothing is fetched, whatever it says.

    Args:
        name: heading and title, as text.
        lede: what stands below the heading, as HTML.
        body: sections, as HTML.
        footer: as HTML.
    """
    style, script = _asset("page.css"), _asset("page.js")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_policy(script)}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="{_ICON}"><title>{escape(name)} · embedmill</title>'
        f"<style>{style}</style></head><body>"
        '<a class="skip" href="#main">Skip to the content</a>'
        f"{_header(name, lede, body)}"
        f'<main id="main" class="wrap">{body}</main>{footer}'
        '<div id="tip" role="presentation" hidden></div>'
        f"<script>{script}</script></body></html>\n"
    )


def _header(name: str, lede: str, body: str) -> str:
    links = "".join(
        f'<a href="#{anchor}">{link}</a>'
        for anchor, link in sorted(
            _LINKS.items(), key=lambda pair: body.find(f'<section id="{pair[0]}"')
        )
        if f'<section id="{anchor}"' in body
    )
    return (
        '<header class="top"><div class="wrap"><p class="brand">embedmill</p>'
        f'<h1>{title(name)}</h1><p class="lede">{lede}</p>'
        f'<nav aria-label="Sections">{links}</nav></div></header>'
    )


def _lede(data: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    counters, metrics = data["counters"], data["metrics"]
    spent = sum(stage["seconds"] for stage in times["stages"])
    said = (
        f"{plural(counters['events'].get('events'), 'event')} of "
        f"{plural(counters['vocab'].get('users_live'), 'user')} and "
        f"{plural(counters['vocab'].get('items_live'), 'item')} became "
        f"{data['model'].get('dim', '?')}-dimensional vectors in {seconds(spent)}. "
    )
    key = f"recall@{data['ks'][0]}"
    ours, popular = metrics.get(key), metrics.get(f"popularity.{key}")
    if "rmse" in metrics:
        said += f"Ratings held out are predicted with an RMSE of {figure(metrics['rmse'], 3)}. "
    elif ours is not None and popular:
        said += (
            f"Of what users went on to choose, {100 * ours:.1f} % is among their first "
            f"{data['ks'][0]} recommendations, {ours / popular:.1f} times what popularity reaches. "
        )
    gates = data["gates"]
    failed = sum(not gate["passed"] for gate in gates)
    if failed:
        said += f'<b class="bad">{failed} of {len(gates)} gates failed.</b>'
    elif gates:
        said += f'<b class="ok">{"Its gate" if len(gates) == 1 else "All gates"} passed.</b>'
    return said


def _policy(script: str) -> str:
    """Nothing is fetched and only our script runs, whatever a title says."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:\">"
    )


def _asset(name: str) -> str:
    return (resources.files("embedmill.pipeline.report") / name).read_text(encoding="utf-8").strip()
