from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from embedmill.pipeline import report
from embedmill.pipeline.errors import MissingArtifactError
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.report.collect.rejects import _readable
from embedmill.pipeline.report.collect.timings import collect_timings
from embedmill.pipeline.report.sections import row_counts
from embedmill.pipeline.store.run import Run
from embedmill.schemas.events import RULES
from embedmill.schemas.report import LogData, LogDistributions
from tests.support.report_world import HOSTILE, ReportWorld, build, report_data

Built = Callable[..., Run]
VOID = {"meta", "link", "input", "br", "img"}


class Reader(HTMLParser):
    """Notes the tags, checks that they nest, and keeps the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def page(run: Run) -> str:
    return run.artifact("report").read("index.html").decode()


def plain(text: str) -> str:
    """Text with spaces for other white space."""
    return " ".join(text.split())


def read(run: Run) -> Reader:
    reader = Reader()
    reader.feed(page(run))
    assert reader.open == []
    return reader


WORLDS = {
    "softmax": ReportWorld(),
    "rating": ReportWorld(rating=True, categories=False, gates=(True, False)),
    "hostile": ReportWorld(
        title=lambda i: HOSTILE[i % len(HOSTILE)], category=lambda i: HOSTILE[i % len(HOSTILE)]
    ),
    "hostile ids": ReportWorld(metadata=False, raw_id=lambda i: f"{HOSTILE[i % len(HOSTILE)]}{i}"),
    "bare": ReportWorld(metadata=False, rejects=False, gates=(), distributions=False),
    "one item": ReportWorld(items=1),
    "nothing held out": ReportWorld(validation=False, test_users=0, gates=()),
    "one k": ReportWorld(ks=(1,)),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_every_page_nests_fetches_nothing_and_links_to_what_is_there(
    built: Built, world: ReportWorld
) -> None:
    reader = read(built(world))
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in reader.tags:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form")
        assert not attrs.keys() & {"src", "srcset", "action", "formaction", "background"}
        assert not any(name.startswith("on") for name in attrs)
        href = attrs.get("href") or ""
        assert not href or href[1:] in ids or href.startswith("data:")
        if tag == "th":
            assert attrs["scope"] in ("row", "col")
    assert sum(tag == "h1" for tag, _ in reader.tags) == 1
    assert sum(tag == "script" for tag, _ in reader.tags) <= 2


def test_the_target_of_the_index_is_shown_with_what_was_verified(built: Built) -> None:
    text = " ".join(read(built()).text.split())
    assert "Target: recall@10 0.95, at most 2.0 MB. Verified with 50 user vectors" in text
    assert "recall@10 0.9970, with 95 % confidence at least 0.9951." in text
    assert "lists=8 probes=3" in text


def test_how_the_index_was_made_is_shown(built: Built) -> None:
    text = " ".join(read(built(ReportWorld(shards=3, carried=True))).text.split())
    assert "It has 3 shards of 7 to 9 items; each query searches all of them." in text
    assert (
        "It is incremental, from the index of an earlier run with 48 items: 40 are kept, 5 have "
        "changed vectors, 3 are removed, 15 are new. The base has 40 items and 8 tombstones, the "
        "delta 20 items. The base had recall@10 0.9911 when it was built."
    ) in text


def test_the_style_fetches_nothing(built: Built) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", page(built()), re.S)
    assert not re.search(r"url\(|@import", style)


def test_hostile_titles_are_text(built: Built) -> None:
    run = built(WORLDS["hostile"], title="<b>Ratings</b> & more")
    reader = read(run)
    for text in ("<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>"):
        assert text in reader.text
    assert "<b>Ratings</b> & more" in reader.text
    assert "<script>alert(3)</script>" in reader.text  # a rejected line
    embedded = re.search(r'id="items">(.*?)</script>', page(run), re.S)
    assert embedded
    assert json.loads(embedded[1])[1][0] == HOSTILE[1]


def test_hostile_ids_are_text(built: Built) -> None:
    """In the headings of cards, in the map's script and in the tables of the log."""
    run = built(WORLDS["hostile ids"], neighbours_of=["</script><img src=x onerror=alert(2)>1"])
    text = read(run).text
    name = "</script><img src=x onerror=alert(2)>1"
    assert f"{name}369 events" in text  # a card of neighbours
    assert f"{name}21" in text  # among the items with most events
    html = page(run)
    assert "<img" not in html
    assert "\x07" not in html


def test_headline_says_metrics_beside_popularity_and_the_gates(built: Built) -> None:
    text = read(built(ReportWorld(gates=(True, False)))).text
    assert "0.131" in text
    assert "1.80× popularity (0.073)" in text
    assert "1 of 2 gates failed." in text
    assert "✓ passed" in text
    assert "✗ failed" in text
    assert "Recall@10 at least 1.5× that of popularity: 1.80×" in text
    assert "Index recall@10 at least 0.95: not measured" in text


def test_protocols_and_their_metrics_are_named(built: Built) -> None:
    text = plain(read(built()).text)
    assert "sampled. 99 sampled negativesEach is ranked. Not comparable: Not with whole" in text
    assert re.search(r"Among sampled negatives.*hit_rate@100\.71300\.4520", text)


def test_ratings_are_headed_by_their_error(built: Built) -> None:
    text = read(built(ReportWorld(rating=True))).text
    assert "an RMSE of 0.931" in text
    assert "predicting the mean rating: 1.126" in text
    assert "Best and worst" in text


def test_absent_parts_are_named_not_left_blank(built: Built) -> None:
    text = read(built(ReportWorld(items=1, metadata=False, validation=False, test_users=0,
                                  rejects=False, gates=()))).text  # fmt: skip
    assert "A map needs at least two items." in text
    assert "There is no other item." in text
    assert "There is no validation part" in text
    assert "there is nothing to measure" in text
    assert "No gates are configured" in text
    assert "Every line could be read." in text
    assert "Best and worst" not in text


def test_one_colour_is_explained(built: Built) -> None:
    assert "All items have one colour: the log has no categories" in read(
        built(ReportWorld(categories=False))
    ).text  # fmt: skip


def test_names_that_are_not_there_are_said(built: Built) -> None:
    run = built(neighbours_of=["Film number 3 (1953)", "No such <film>"])
    assert (
        "Named in report.neighbours_of, but not in the vocabulary: No such <film>."
        in read(run).text
    )
    assert run.artifact("report").counters == {
        "items_on_map": 60, "neighbours_of": 1, "not_found": 1
    }  # fmt: skip


def test_rejects_are_counted_by_reason_with_their_first_lines(built: Built) -> None:
    data = report_data(built())
    assert [(one.reason, one.count) for one in data.rejects] == [
        ("wrong number of columns", 4),
        ("weight is not a finite number", 1),
    ]
    assert [one.as_json() for one in data.rejects[0].examples] == [
        {"file": "u.data", "line": 3, "raw": "<script>alert(3)</script>"},
        {"file": "u.data", "line": 5, "raw": "\\xff\\xfe caf\\xe9"},
        {"file": "u.data", "line": 7, "raw": "1\t2"},
    ]


def test_a_long_rejected_line_is_cut() -> None:
    assert _readable(b"a" * 1000) == "a" * 400 + "…"


def test_the_same_run_gives_the_same_data_and_content(tmp_path: Path) -> None:
    one, other = (
        build(ReportWorld().write(tmp_path / name)).artifact("report").manifest for name in "ab"
    )
    assert one.content == other.content
    assert {f.path: f.volatile for f in one.files} == {"data.json": False, "index.html": True}


def test_data_holds_no_times_and_no_folder(built: Built, tmp_path: Path) -> None:
    text = json.dumps(report_data(built()).as_json())
    assert "seconds" not in text
    assert "ms_per_query" not in text
    assert str(tmp_path) not in text


def test_progress_has_every_part(tmp_path: Path) -> None:
    class Noting(Quiet):
        seen: list[tuple[int, int | None]] = []  # noqa: RUF012

        def update(self, done: int, total: int | None, unit: str, **facts: float) -> None:
            self.seen.append((done, total))

    run = ReportWorld().write(tmp_path)
    report.build(run, run.writer("report"), Noting())
    assert Noting.seen == [(n, 4) for n in (1, 2, 3, 4)]


def test_a_run_that_is_not_finished_is_named(tmp_path: Path) -> None:
    run = ReportWorld().write(tmp_path)
    out = run.writer("report")
    run.storage.at("index").remove("manifest.json")
    with pytest.raises(MissingArtifactError, match="'index' has not finished"):
        report.build(run, out, Quiet())


def test_it_works_on_storage_that_is_not_a_disk() -> None:
    run = build(ReportWorld(items=5).write("memory://report-world"))
    assert report_data(run).run == "world"


def test_where_the_time_of_training_went(built: Built) -> None:
    run = built(WORLDS["softmax"])
    # 18 seconds in all; 60,000 pairs in the 12 seconds of steps.
    training = collect_timings(run).training
    assert training is not None
    assert training.parts == {"loss": 9.0, "validate": 6.0, "exchange": 2.5, "wait": 0.5}
    assert list(training.parts) == ["loss", "validate", "exchange", "wait"]
    text = re.sub(r"\s+", " ", read(run).text)
    assert "(2 workers, then 3 workers; means over workers), 5,000 pairs per second" in text
    assert re.search(r"Loss\s*9\.0\s*s\s*50\.0\s*%", text)


def test_distributions_of_events_are_shown(built: Built) -> None:
    text = re.sub(r"\s+", " ", read(built()).text)
    assert "From 2020-01-01 to 2020-09-01: 245 days, 236 of them without an event." in text
    # The first one has 34 of 2,750 events.
    assert "share of events of the most frequent id1.2 %1.2 %" in text
    assert "<b>u0</b>" in text
    assert "Film number 1 (1951)21" in text
    assert "Compared with the base run" not in text


def test_what_was_not_counted_is_not_shown(built: Built) -> None:
    bare = read(built(WORLDS["bare"])).text
    assert "Events over time" not in bare
    assert "Most and least frequent ids" not in bare


def test_what_rules_dropped_is_shown() -> None:
    assert tuple(row_counts.DROPS) == tuple(RULES)
    counters = {"rows_in": 200, "events": 90, "merged": 0, "rejected": 0, "bots": 50, "capped": 60}
    data = LogData(
        run="r",
        title="r",
        fingerprint="",
        split="last",
        counters={"events": counters},
        rejects=[],
        log=LogDistributions(),
    )
    section = row_counts.section(data)
    page = section.html.replace("\N{NO-BREAK SPACE}", " ")
    assert "of bots" in page
    assert "25.0 %" in page
    assert "30.0 %" in page
    assert "events.filter" not in page
