"""Which columns of a log are the user, the item, the time and the weight: by names and values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ROLES", "ColumnSample", "assign_roles", "known_names", "name_score"]

# Words of names, the likeliest first. Further down: abbreviations.
ROLES: Mapping[str, str] = {
    "user": (
        "user users uid usr utente usuario utilisateur nutzer benutzer customer visitor member "
        "account household client buyer shopper person people reader listener viewer player "
        "student learner patient subscriber reviewer author actor profile device cookie session "
        "u who"
    ),
    "item": (
        "item items iid product sku movie film track song artist album book isbn asin article "
        "video game app recipe course listing offer news anime business venue poi location place "
        "repo merchant content page url post document object target city città category i thing"
    ),
    "time": (
        "timestamp time datetime ts at date day when quando unixtime created occurred played "
        "clicked purchased epoch zeit datum fecha hora t"
    ),
    "weight": "rating weight score stars count plays quantity qty playcount strength value w r",
}
_IDENTIFIERS = {"id", "ids", "key", "no", "nr", "number", "num", "code", "hash", "uuid", "guid"}
_TYPES = {"token", "float", "seq", "int", "str", "string", "long", "utc"}
# What a column beside an id says of the user or item, and is no id.
_ATTRIBUTES = {
    "name", "title", "age", "gender", "sex", "country", "type", "desc", "description", "agent",
    "email", "price", "category", "zip", "rank", "lang", "language", "status",
}  # fmt: skip
_FILLED = 0.9  # share of rows that have a value of what every event has
_EXACT, _WITH_ID, _CONTAINED = 90.0, 100.0, 50.0


@dataclass(frozen=True)
class ColumnSample:
    """Some values of a column.

    Attributes:
        name: or path of the column.
        values: that are there, as Python objects; text where the file is text.
        rows: number of rows that were looked at.
        time_share: share of the values that are plausible times.
    """

    name: str
    values: Sequence[Any]
    rows: int
    time_share: float = 0.0

    @property
    def distinct(self) -> int:
        """Number of distinct values."""
        return len({repr(value) for value in self.values})

    @property
    def is_scalar(self) -> bool:
        """Whether most values are not nested."""
        nested = sum(isinstance(value, list | dict | tuple) for value in self.values)
        return nested * 2 < len(self.values)

    @property
    def is_number(self) -> bool:
        """Whether most values are numbers, as text or not, or true and false."""
        numbers = sum(
            _as_float(value) is not None or str(value).lower() in ("true", "false")
            for value in self.values
        )
        return numbers * 2 > len(self.values)

    @property
    def has_fractions(self) -> bool:
        """Whether a value is a number that is not whole."""
        numbers = [_as_float(value) for value in self.values]
        return any(n is not None and n != int(n) for n in numbers if n is None or abs(n) < 1e300)


def name_score(name: str, role: str) -> float:
    """How well a name fits a role; 0 where it does not."""
    words = _words(name)
    bare = [word for word in words if word not in _IDENTIFIERS | _TYPES] or words
    if role in ("user", "item") and bare[-1:] and bare[-1] in _ATTRIBUTES:
        return 0.0
    for rank, word in enumerate(ROLES[role].split()):
        if word not in bare:
            continue
        if len(word) < 3 and bare != [word]:
            continue
        base = _CONTAINED
        if bare == [word]:
            base = _WITH_ID if set(words) & _IDENTIFIERS or role in ("time", "weight") else _EXACT
        elif bare[-1] == word or set(words) & _IDENTIFIERS:
            base = _CONTAINED + 10
        return base - rank / 10 - name.count(".")
    return 0.0


def known_names(names: Sequence[str]) -> int:
    """How many of some names fit a role."""
    return sum(any(name_score(name, role) for role in ROLES) for name in names)


def assign_roles(columns: Sequence[ColumnSample]) -> tuple[dict[str, str], dict[str, str]]:
    """The column of each role, and by role why it is unsure.

    User and item are always assigned where there are two columns; time and weight where a
    column's name or values tell.
    """
    usable = [one for one in columns if one.is_scalar and one.values]
    roles: dict[str, str] = {}
    unsure: dict[str, str] = {}
    # A column that has times and another name is the time only if no id has its name.
    for role, score in (
        ("time", _named_time),
        ("user", _score),
        ("item", _score),
        ("time", _score),
        ("weight", _score),
    ):
        left = [one for one in usable if one.name not in roles.values()]
        scored = [(score(one, role), -n, one) for n, one in enumerate(left)]
        scored = [one for one in scored if one[0] > 0]
        if scored and role not in roles:
            best = max(scored, key=lambda one: one[:2])
            roles[role] = best[2].name
            rivals = [c.name for points, _, c in scored if points > best[0] - 5 and c != best[2]]
            if rivals:
                unsure[role] = f"it may also be {', '.join(rivals)}"
    if len(usable) == len(roles) == 2 and {"user", "item"} - set(roles):
        roles.pop("weight", None)  # no log has a user and a weight alone
    for role in ("user", "item"):
        left = [one for one in usable if one.name not in roles.values()]
        filled = [one for one in left if len(one.values) >= _FILLED * one.rows] or left
        ids = [one for one in filled if not one.has_fractions and one.time_share < _FILLED]
        ids = ids or filled
        if role not in roles and ids:
            roles[role] = ids[0].name
            unsure[role] = "no column has a name that says so; this is the first that may be"
    return roles, unsure


def _named_time(column: ColumnSample, role: str) -> float:
    """As `_score`, but 0 where the name does not fit."""
    return _score(column, role) if name_score(column.name, role) else 0.0


def _score(column: ColumnSample, role: str) -> float:
    """How well a column fits a role, by its name and values; 0 where it does not."""
    score = name_score(column.name, role)
    if role == "time":
        if column.time_share < 0.5:
            return 0.0
        return score + 10 * column.time_share if score else 30 * (column.time_share >= 1)
    if role == "weight":
        return score if column.is_number else 0.0
    if column.has_fractions:
        return 0.0
    return score


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word]
    joined = []
    for word in words:  # userid, itemno
        match = re.fullmatch(r"(.{2,}?)(id|ids|no)", word)
        known = match and any(match[1] in names.split() for names in ROLES.values())
        joined += [match[1], "id"] if match and known else [word]
    return joined


def _as_float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None if isinstance(value, bool) or not hasattr(value, "as_tuple") else float(value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None
