"""Conservation laws and status lines of the artifacts."""

from __future__ import annotations

import pytest

from embedmill.pipeline.errors import ContractError
from embedmill.pipeline.store.contracts import check_counters, check_schema
from embedmill.schemas.contract import Law
from embedmill.schemas.events import EVENTS, too_many_rejects
from embedmill.schemas.registry import CONTRACTS
from embedmill.schemas.shards import PAIR, SHARD
from embedmill.schemas.stages import STAGES


def test_every_stage_has_a_contract() -> None:
    assert list(CONTRACTS) == list(STAGES)


def test_a_law_counts_optional_parts_where_they_are_counted() -> None:
    law = Law(("rows",), ("kept",), optional_parts=("bots", "capped"))
    assert law.terms({"rows": 3, "kept": 2, "capped": 1}) == (("rows",), ("kept", "capped"))
    assert law.applies({})


def test_an_optional_law_holds_once_one_of_its_parts_is_counted() -> None:
    law = Law(("base",), ("in_use", "tombstones"), optional=True)
    assert not law.applies({"base": 4})
    assert law.applies({"tombstones": 0})


@pytest.mark.parametrize(
    ("stage", "counters", "message"),
    [
        ("events", {"rows_in": 9, "events": 5, "rejected": 2, "merged": 1}, "rows_in 9 is not"),
        ("shards", {"events_in": 2, "train": 1, "valid": 1, "test": 0}, "did not count dropped"),
        (
            "shards",
            {"events_in": 2, "train": 2, "valid": 0, "test": 0, "dropped": 0, "pairs_events": 2,
             "pairs_thinned_out": 1, "pairs_shared_out": 0, "pairs_found": 0, "pairs_counted": 0},
            "train 2 is not pairs_events 2 [+] pairs_thinned_out 1",
        ),
        (
            "index",
            {"items_in": 3, "indexed": 3, "not_live": 0, "kept": 1, "changed": 1, "new": 1},
            "did not count indexed_before, removed",
        ),
    ],
)  # fmt: skip
def test_laws_that_do_not_hold(stage: str, counters: dict[str, int], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_counters(stage, counters, "")


def test_rows_that_a_rule_dropped_are_conserved() -> None:
    counters = {"rows_in": 9, "events": 5, "rejected": 2, "merged": 1, "bots": 1}
    check_counters("events", counters, "")


def test_schemas_are_fixed_by_folder() -> None:
    check_schema("shards", "pairs/part-00000.parquet", PAIR, "")
    check_schema("shards", "train/part-00000.parquet", SHARD, "")
    check_schema("events", "elsewhere/part-00000.parquet", PAIR, "")
    with pytest.raises(ContractError, match="center_row"):
        check_schema("events", "data/part-00000.parquet", PAIR, "")
    with pytest.raises(ContractError, match=r"items\.parquet"):
        check_schema("events", "items.parquet", EVENTS, "")


@pytest.mark.parametrize(
    ("stage", "counters", "line"),
    [
        ("events", {"rows_in": 9, "events": 5, "rejected": 3, "merged": 1},
         "5 events, 3 rejected, 1 merged"),
        ("events", {"rows_in": 10, "events": 5, "rejected": 3, "merged": 1},
         "5 events, 3 rejected, 1 dropped"),
        ("vocab", {"users_live": 4, "items_live": 2}, "4 users, 2 items"),
        ("shards", {"train": 3, "valid": 2, "test": 1}, "3 train, 2 valid, 1 test"),
        ("train", {"epochs": 3, "steps": 12, "best_epoch": 2}, "3 epochs, 12 steps, best 2"),
        ("export", {"users": 4, "items": 2}, "4 user and 2 item vectors"),
        ("index", {"indexed": 2, "queries": 1}, "2 items, 1 queries"),
        ("evaluate", {}, "0 users on test"),
        ("report", {}, "index.html"),
    ],
)  # fmt: skip
def test_status_lines(stage: str, counters: dict[str, int], line: str) -> None:
    assert CONTRACTS[stage].status(counters, str) == line


def test_too_many_rejects() -> None:
    counters = {"rows_in": 10, "rejected": 2, "filtered": 4}
    assert too_many_rejects(counters, 0.5) == ""
    assert "2 of 6 lines are bad" in too_many_rejects(counters, 0.1)
    assert "2 of 2 lines are bad" in too_many_rejects({"rows_in": 2, "rejected": 2}, 1.0)
    assert too_many_rejects({"rows_in": 0, "rejected": 0}, 0.0) == ""
