"""Sections of the page about the items: the map, neighbours, best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedmill.pipeline.report import svg
from embedmill.pipeline.report.projection import CATEGORIES
from embedmill.pipeline.report.sections import section
from embedmill.pipeline.report.wording import count, embedded_json, escape, plural, signed, title

__all__ = ["atlas", "extremes", "neighbours"]


def atlas(data: Mapping[str, Any], labels: int) -> str:
    """The map of items with its legend, search box and read-out."""
    found = data["map"]
    points, names, (first, second) = found["points"], found["categories"], found["variance"]
    every = len(points) == data["counters"]["vocab"]["items_live"]
    shown = (
        f"{'all' if every else 'the'} {count(len(points))} {'' if every else 'most frequent '}items"
    )
    if len(points) < 2:
        return section("map", "A map of the items", "One item makes no map.", "")
    intro = (
        f"The vectors of {shown}, on their first two principal components, which keep "
        f"{100 * first:.1f} % and {100 * second:.1f} % of the variance: near on the map is a "
        "hint, the neighbours below are exact. Larger points have more events. Each axis is "
        "stretched to fill the frame."
    )
    said = f"Map of {shown}. Use the arrow keys to go through the items by frequency."
    small = [[p["title"][:200], p["count"], " · ".join(p["categories"])[:120]] for p in points]
    script = f'<script type="application/json" id="items">{embedded_json(small)}</script>'
    search = (
        '<label class="find"><span>Find an item</span> <input type="search" id="find" '
        'autocomplete="off" placeholder="Find an item"></label>'
    )
    live = '<p class="readout" id="readout" role="status" aria-live="polite"></p>'
    drawn = svg.item_map(points, labels)
    return section(
        "map",
        "A map of the items",
        intro,
        f'<div class="map-tools">{_legend(points, names)}{search}</div>'
        f'<div class="map-frame" tabindex="0" role="group" aria-label="{escape(said)}">{drawn}'
        f"</div>{live}{script}",
    )


def _legend(points: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    if not names:
        return (
            '<p class="quiet">One colour: the log came without categories of items '
            "(<code>events.items.categories</code>).</p>"
        )
    buttons = []
    for i, name in [*enumerate(names), (CATEGORIES, "other or none")]:
        size = sum(p["category"] == i for p in points)
        if size:
            buttons.append(
                f'<li><button type="button" aria-pressed="false" data-k="{i}">'
                f'<i class="k{i}"></i>{title(name)} <span>{count(size)}</span></button></li>'
            )
    return (
        '<ul class="map-legend" aria-label="First category: press to pick out">'
        f"{''.join(buttons)}</ul>"
    )


def neighbours(data: Mapping[str, Any]) -> str:
    """Cards of well-known items with their nearest by cosine."""
    found = data["neighbours"]
    cards = []
    for item in found["of"]:
        near = "".join(
            f'<li>{title(n["title"])}<span class="bar" aria-hidden="true">'
            f'<i style="width:{max(0.0, 100 * n["cosine"]):.0f}%"></i></span>'
            f"<em>{n['cosine']:.2f}</em></li>"
            for n in item["near"]
        )
        listed = f"<ol>{near}</ol>" if near else '<p class="quiet">It is the only item.</p>'
        kinds = " · ".join(title(c) for c in item["categories"][:3])
        cards.append(
            f"<article><h3>{title(item['title'])}</h3><p>{plural(item['count'], 'event')}"
            f"{f' · {kinds}' if kinds else ''}</p>{listed}</article>"
        )
    missing = ", ".join(title(name) for name in found["not_found"])
    note = (
        f'<p class="warn">Asked for, but not in the vocabulary: {missing}.</p>' if missing else ""
    )
    return section(
        "neighbours",
        "Neighbours",
        "The nearest items by cosine, exact over the whole catalogue.",
        f'{note}<div class="cards">{"".join(cards)}</div>',
    )


def extremes(data: Mapping[str, Any]) -> str:
    """Best and worst items by bias; nothing for models without biases."""
    found = data["bias"]
    if not found:
        return ""
    intro = (
        "An item’s bias is what it adds to a rating whoever the user is: a mean corrected for "
        f"who rated it. Of the {count(found['items'])} items with at least "
        f"{plural(found['least_count'], 'event')}."
    )
    columns = "".join(
        f'<article class="{key}"><h3>{name}</h3>{_ranking(found[key])}</article>'
        for name, key in (("Best", "best"), ("Worst", "worst"))
        if found[key]
    )
    return section("bias", "Best and worst", intro, f'<div class="cards two">{columns}</div>')


def _ranking(items: Sequence[Mapping[str, Any]]) -> str:
    greatest = max((abs(i["bias"]) for i in items), default=0) or 1
    rows = "".join(
        f'<li>{title(i["title"])}<span class="bar" aria-hidden="true">'
        f'<i style="width:{100 * abs(i["bias"]) / greatest:.0f}%"></i></span>'
        f"<em>{signed(i['bias'])}</em></li>"
        for i in items
    )
    return f"<ol>{rows}</ol>"
