"""Hashes of 64-bit keys that are the same on every machine and engine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mix64", "to_unit_interval"]


def mix64(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """A one-to-one hash of each key to 64 bits that look random.

    The finalizer of splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
    generators").
    """
    bits = keys.view(np.uint64) ^ np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))


def to_unit_interval(hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) from each hash, independent of the order of the hashes.

    Shard files are sorted by hash: a share drawn by the hash itself would be a range of the file.
    """
    return (mix64(hashes) >> np.uint64(11)).astype(np.float64) * 2.0**-53
