"""Which keys of [index.hnsw], [index.ivf] and [index.ivfpq] each kind of index reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = [
    "INDEX_SECTIONS",
    "KIND_KEYS",
    "TARGETS",
    "KindKeys",
    "KindName",
    "read_index",
    "refused_index",
]

KindName = Literal[
    "auto", "flat", "fastscan", "hnsw", "hnswsq8", "ivfflat", "ivfsq8", "ivfpq", "opqivfpq"
]
INDEX_SECTIONS = ("hnsw", "ivf", "ivfpq")
TARGETS = ("recall_at_10", "max_bytes", "max_latency_ms")


@dataclass(frozen=True)
class KindKeys:
    """The keys that one kind reads, as "<section>.<key>".

    Attributes:
        built: read whether there are targets or not.
        selected: read only where no target is set; otherwise selection sets them.
    """

    built: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()


_GRAPH = ("hnsw.m", "hnsw.ef_construction")
# Many items that the base of an incremental index lacks are a graph, whatever the kind of the base.
_DELTA = (*_GRAPH, "hnsw.ef_search")
_IVF_CODES = ("ivf.probes", "ivf.refine", "ivf.refine_bits")

KIND_KEYS: dict[str, KindKeys] = {
    # All kinds are candidates; it always has targets.
    "auto": KindKeys((*_GRAPH, "ivf.lists", "ivf.segments", "ivfpq.lists", "ivfpq.segments")),
    "flat": KindKeys(),
    "fastscan": KindKeys(("ivf.lists", "ivf.segments"), _IVF_CODES),
    "hnsw": KindKeys(_GRAPH, ("hnsw.ef_search",)),
    "hnswsq8": KindKeys(_GRAPH, ("hnsw.ef_search", "hnsw.refine", "hnsw.refine_bits")),
    "ivfflat": KindKeys(("ivf.lists",), ("ivf.probes",)),
    "ivfsq8": KindKeys(("ivf.lists",), ("ivf.probes",)),
    "ivfpq": KindKeys(("ivfpq.lists", "ivfpq.segments"), ("ivfpq.probes",)),
    "opqivfpq": KindKeys(("ivf.lists",), ("ivf.segments", *_IVF_CODES)),
}
assert tuple(KIND_KEYS) == get_args(KindName)


def refused_index(index: Mapping[str, Any]) -> dict[str, str]:
    """Keys of section index that its kind does not read, each with the reason.

    Args:
        index: section index of a TOML; what is no value of a key is left to `IndexConfig`.

    Returns:
        by path below [index]: "hnsw" for a section of which the kind reads nothing, "hnsw.m" for
        a key.
    """
    kind = index.get("kind", "auto")
    if not isinstance(kind, str) or kind not in KIND_KEYS:
        return {}
    read, refused = _read_keys(kind, index), dict[str, str]()
    for section in INDEX_SECTIONS:
        given = index.get(section)
        if not isinstance(given, Mapping):
            continue
        if kind not in _readers(section) and not any(_is_in(key, section) for key in read):
            refused[section] = _reason(section, kind)
            continue
        for key in (f"{section}.{name}" for name in given):
            if _readers(key) and key not in read:
                refused[key] = _reason(key, kind)
    return refused


def read_index(index: Mapping[str, Any]) -> dict[str, Any]:
    """Section index without the keys and sections that its kind does not read."""
    refused, kept = refused_index(index), dict[str, Any]()
    for name, value in index.items():
        if name in INDEX_SECTIONS and isinstance(value, Mapping):
            value = {k: v for k, v in value.items() if f"{name}.{k}" not in refused}
        if name not in refused:
            kept[name] = value
    return kept


def _read_keys(kind: str, index: Mapping[str, Any]) -> tuple[str, ...]:
    """What is read of the sections with this kind and the other keys of section index."""
    keys = KIND_KEYS[kind]
    targets = kind == "auto" or any(index.get(target) is not None for target in TARGETS)
    delta = _DELTA if index.get("carry_over") else ()
    return (*keys.built, *(() if targets else keys.selected), *delta)


def _readers(path: str) -> list[str]:
    """The kinds that read a key, or some key of a section."""
    return [
        kind
        for kind, keys in KIND_KEYS.items()
        if any(_is_in(key, path) for key in (*keys.built, *keys.selected))
    ]


def _is_in(key: str, path: str) -> bool:
    """Whether a key is `path`, or stands in the section `path`."""
    return key == path or key.startswith(f"{path}.")


def _reason(path: str, kind: str) -> str:
    if path in KIND_KEYS[kind].selected:
        return f"not read where a target is set ({', '.join(TARGETS)}), which selects it"
    readers = _readers(path)
    if kind == "auto":
        return f"not read by kind 'auto', which selects it; only by {', '.join(readers)}"
    return f"not read by kind '{kind}', only by {', '.join(readers)}"
