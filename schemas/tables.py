"""Arrow schemas of every Parquet file of the line.

Legend: `user`, `item` are raw ids (UTF-8); `user_row`, `item_row` dense rows from 0; `time`
microseconds since 1970-01-01 UTC (null where the log has none);
`weight` what the log says of the event (a rating, a count; 1 where it says nothing).
"""

from __future__ import annotations

import pyarrow as pa

__all__ = ["EVENTS", "ITEMS_META", "PAIR", "REJECTS", "SHARD", "TABLES", "VOCAB", "embeddings"]

# events/data/part-*.parquet. `split` is null unless `shards.split = "given"`.
EVENTS = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("time", pa.int64()),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("split", pa.string()),
    ]
)

# events/rejects/part-*.parquet. `line` counts from 1 (for Parquet: the row); `raw` is the
# line as it stood in the file, at most 4,096 bytes of it. All rejects are counted; of each reason
# the first `events.keep_rejects` of the files that one task reads together are here.
REJECTS = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=False),
    ]
)

# events/items.parquet, where the config names item metadata. `categories` may be empty.
ITEMS_META = pa.schema(
    [
        pa.field("item", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("categories", pa.list_(pa.field("element", pa.string(), nullable=False))),
    ]
)

# vocab/users/part-*.parquet and vocab/items/part-*.parquet, sorted by row, part n holding
# rows [n * 2**20, (n + 1) * 2**20). Rows of a new vocabulary go by falling count; one that
# continues another keeps its rows and appends to them. `id` is null for the rows that ids out
# of the vocabulary share. `count` is events after merging and thresholds, 0 for a retired row.
# `missed` counts the runs in a row, this one included, in which the id did not have its minimum
# count. `live` rows have an id and events: nothing else is indexed or recommended.
VOCAB = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("missed", pa.int32(), nullable=False),
        pa.field("live", pa.bool_(), nullable=False),
    ]
)

# shards/{train,valid,test}/part-PPPPP.parquet, PPPPP = user_row mod partitions, sorted by
# (hash, user_row, item_row, time). `hash` is a 64-bit hash of the event and the seed.
SHARD = pa.schema(
    [
        pa.field("user_row", pa.int64(), nullable=False),
        pa.field("item_row", pa.int64(), nullable=False),
        pa.field("time", pa.int64()),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("hash", pa.int64(), nullable=False),
    ]
)

# shards/{pairs,pairs_with_valid}/part-PPPPP.parquet, where `shards.pairs` asks for them, PPPPP =
# center_row mod partitions, sorted by (hash, center_row, context_row). `count` says how often
# the context stands in a window of the center, over the sessions of train events (with_valid:
# of train and validation events). Both directions are there; `hash` is of the pair and the seed.
PAIR = pa.schema(
    [
        pa.field("center_row", pa.int64(), nullable=False),
        pa.field("context_row", pa.int64(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("hash", pa.int64(), nullable=False),
    ]
)


def embeddings(dimension: int, *, bias: bool) -> pa.Schema:
    """Schema of export/{users,items}/part-*.parquet: rows sorted, D = `dimension`.

    The inner product of a user's and an item's `vector` ranks items for the user, whatever
    the model. Where it has biases, an item's last coordinate is its bias and a user's is 1,
    and `bias` holds the bias of either; a rating is then mean + user bias + inner product.
    Rows are those of the vocabulary, all of them; those that are not `live` (retired ones, and
    those with null for an id, which are shared) are no candidates for a recommendation.
    """
    fields = [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("live", pa.bool_(), nullable=False),
        pa.field(
            "vector",
            pa.list_(pa.field("element", pa.float32(), nullable=False), dimension),
            nullable=False,
        ),
    ]
    if bias:
        fields.append(pa.field("bias", pa.float32(), nullable=False))
    return pa.schema(fields)


# Fixed schemas by the first folder (or file) of the path inside an artifact.
TABLES: dict[tuple[str, str], pa.Schema] = {
    ("events", "data"): EVENTS,
    ("events", "rejects"): REJECTS,
    ("events", "items.parquet"): ITEMS_META,
    ("vocab", "users"): VOCAB,
    ("vocab", "items"): VOCAB,
    ("shards", "train"): SHARD,
    ("shards", "valid"): SHARD,
    ("shards", "test"): SHARD,
    ("shards", "pairs"): PAIR,
    ("shards", "pairs_with_valid"): PAIR,
}
