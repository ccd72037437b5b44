"""Incremental index: the base of an earlier run, a delta of new items, and tombstones.

Terms: the *base* is an index that was built once and is kept as it is. Its entries are *slots*. A
slot whose item is gone, or has another vector by now, is a *tombstone*. The *delta* is a small
index of the items that have no slot.
"""
