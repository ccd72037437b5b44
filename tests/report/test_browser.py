"""The page in a real browser: quiet, narrow enough, and alive under pointer, finger and keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.report_world import HOSTILE, ReportWorld, build

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.browser

WORLDS = {
    "softmax": ReportWorld(items=300),
    "rating": ReportWorld(rating=True, categories=False),
    "hostile": ReportWorld(
        title=lambda i: HOSTILE[i % len(HOSTILE)], category=lambda i: HOSTILE[i % len(HOSTILE)]
    ),
    "one item": ReportWorld(items=1, metadata=False, test_users=0, validation=False),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = next(
        (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))),
        None,
    )
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = {}
    for name, world in WORLDS.items():
        run = build(world.write(tmp_path_factory.mktemp("world")))
        found[name] = Path(run.artifact("report").url("index.html")).resolve().as_uri()
    return found


class Watched:
    """A page, with what it asked of the network and what it complained of."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("dialog", lambda d: (self.complaints.append(d.message), d.dismiss()))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(url)


@pytest.fixture
def visit(browser: Any, urls: dict[str, str]) -> Iterator[Any]:
    visits: list[Watched] = []

    def go(world: str = "softmax", width: int = 1280, **context: Any) -> Watched:
        context.setdefault("viewport", {"width": width, "height": 800})
        visits.append(Watched(browser, urls[world], **context))
        return visits[-1]

    yield go
    for one in visits:
        assert one.complaints == []
        assert [r for r in one.requests if not r.startswith(("file:", "data:"))] == []
        one.context.close()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_reaches_past_the_edge_of_the_screen(
    visit: Any, world: str, width: int, scheme: str
) -> None:
    page = visit(world, width, color_scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [320, 1280])
def test_numbers_stay_on_one_line_within_their_column(visit: Any, width: int) -> None:
    page = visit("rating", width).page
    spilling = page.evaluate(
        """() => [...document.querySelectorAll("article em, td.n, .big")]
          .filter((e) => {
            const text = document.createRange();
            text.selectNodeContents(e);
            const lines = new Set([...text.getClientRects()].map((box) => Math.round(box.bottom)));
            return lines.size > 1 || e.scrollWidth > e.clientWidth + 1;
          })
          .map((e) => e.textContent)"""
    )
    assert page.locator("article em").count() > 10
    assert spilling == []


def test_light_and_dark_are_two_pages(visit: Any) -> None:
    papers = {
        visit(color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert len(papers) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(visit: Any, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text, on paper and on cards."""
    page = visit(color_scheme=scheme).page
    ratios = page.evaluate(
        """() => {
          const style = getComputedStyle(document.documentElement);
          const shade = (name) => {
            const box = document.createElement("i");
            box.style.color = style.getPropertyValue(name);
            document.body.append(box);
            const rgb = getComputedStyle(box).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
            box.remove();
            const [r, g, b] = rgb.map((v) => v / 255)
              .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const found = {};
          for (const ink of ["--ink", "--soft", "--ok", "--bad", "--ours", "--other"]) {
            for (const ground of ["--paper", "--card"]) {
              const [a, b] = [shade(ink), shade(ground)].sort((p, q) => q - p);
              found[`${ink} on ${ground}`] = (a + 0.05) / (b + 0.05);
            }
          }
          return found;
        }"""
    )
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


def test_hover_shows_the_title(visit: Any) -> None:
    page = visit().page
    page.locator(".map").scroll_into_view_if_needed()
    assert page.locator("#tip").is_hidden()
    page.locator('.items circle[data-i="0"]').hover(force=True)
    assert page.locator("#tip b").inner_text() == "Film number 0 (1950)"
    assert page.locator("#tip").inner_text().endswith("600 events · genre-0")
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()


def test_a_tap_shows_the_title(visit: Any) -> None:
    page = visit(width=390, has_touch=True, is_mobile=True).page
    page.locator(".map").scroll_into_view_if_needed()
    page.locator('.items circle[data-i="0"]').tap(force=True)
    assert "Film number 0 (1950)" in page.locator("#tip").inner_text()
    assert "Film number 0 (1950)" in page.locator("#readout").inner_text()


def test_a_hostile_title_is_shown_as_it_is(visit: Any) -> None:
    page = visit("hostile").page
    page.locator(".map").scroll_into_view_if_needed()
    page.locator('.items circle[data-i="1"]').hover(force=True)
    assert page.locator("#tip b").inner_text() == HOSTILE[1]


def test_arrow_keys_go_through_the_items(visit: Any) -> None:
    page = visit().page
    page.locator(".map-frame").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#readout").inner_text().startswith("Film number 1 (1951): ")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#readout").inner_text().startswith("Film number 0 (1950): ")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_search_and_categories_pick_items_out(visit: Any) -> None:
    page = visit().page
    lit = page.locator(".map.picked .items circle.on")
    page.fill("#find", "NUMBER 29")
    assert lit.count() == 11  # 29 and 290 to 299
    assert "11 found" in page.locator("#readout").inner_text()
    page.locator(".map-legend button", has_text="genre-1").click()
    assert lit.count() == 3  # 29, 293, 297
    page.fill("#find", "no such film")
    assert "No item" in page.locator("#readout").inner_text()
    page.fill("#find", "")
    assert lit.count() == 75
    page.locator(".map-legend button", has_text="genre-1").click()
    assert lit.count() == 0


def test_labels_lie_inside_the_map_and_apart(visit: Any) -> None:
    for width in (390, 600, 1000, 1280):
        page = visit(width=width).page
        boxes = page.evaluate(
            """() => [...document.querySelectorAll(".labels text")]
              .map((t) => t.getBoundingClientRect()).filter((b) => b.width)
              .map((b) => [b.left, b.top + 2, b.right, b.bottom - 2])"""
        )
        frame = page.locator(".map-frame").bounding_box()
        assert len(boxes) >= 5
        for i, a in enumerate(boxes):
            assert frame["x"] <= a[0]
            assert a[2] <= frame["x"] + frame["width"]
            for b in boxes[:i]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_charts_tell_their_values(visit: Any) -> None:
    page = visit().page
    column = page.locator("#training .hit").nth(3)
    column.scroll_into_view_if_needed()
    column.hover(force=True)
    assert page.locator("#tip").inner_text() == "epoch 4: 3.887"


def test_charts_of_the_log_tell_their_values(visit: Any) -> None:
    page = visit().page
    for inside, says in (
        ("#activity .hit", "2020-01-01: 100 events"),
        ("#ids .dot", "at least 1 events: 100 % of users"),
    ):
        first = page.locator(inside).first
        first.scroll_into_view_if_needed()
        first.hover(force=True)
        assert page.locator("#tip").inner_text() == says


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_ticks_and_names_of_axes_lie_apart(visit: Any, width: int) -> None:
    page = visit(width=width).page
    boxes = page.evaluate(
        """() => [...document.querySelectorAll(".plot.named")].map((plot) =>
          [...plot.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()])
            .filter(([, b]) => b.width).map(([s, b]) => [s, b.left, b.top, b.right, b.bottom]))"""
    )
    assert len(boxes) == 3
    for texts in boxes:
        names = {text for text, *_ in texts}
        assert names & {"events", "share of users", "share of items"}
        for i, (one, left, top, right, bottom) in enumerate(texts):
            for other, *box in texts[:i]:
                apart = (
                    right <= box[0] or box[2] <= left or bottom <= box[1] + 2 or box[3] <= top + 2
                )
                assert apart, (one, other)


def test_it_reads_without_script(visit: Any) -> None:
    page = visit(java_script_enabled=False).page
    assert page.locator("h2", has_text="Neighbours").is_visible()
    assert page.locator(".labels.w3 text").first.is_visible()
