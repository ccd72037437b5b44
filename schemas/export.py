"""Artifact `export`: vectors with their ids, ready for an inner product."""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field

from embedmill.schemas.contract import ArtifactContract, Count, Counters, Law
from embedmill.schemas.files import JsonFile, Number, PartFiles, Stored

__all__ = [
    "CONTRACT",
    "FILES",
    "MATRIX_IDS",
    "ROWS_PER_FILE",
    "SPEC",
    "Space",
    "VectorSpec",
    "embeddings",
    "matrix_file",
    "matrix_ids_file",
]

ROWS_PER_FILE = 1 << 17
# By side, contiguous ranges of rows.
FILES = {side: PartFiles(side, rows_per_file=ROWS_PER_FILE) for side in ("users", "items")}


def embeddings(dimension: int, *, bias: bool) -> pa.Schema:
    """Schema of the files of vectors: sorted by row, D = `dimension`.

    The inner product of a user's and an item's `vector` ranks items for the user, whatever
    the model. Where it has biases, an item's last coordinate is its bias and a user's is 1,
    and `bias` holds the bias of either; a rating is then mean + user bias + inner product.
    Rows are those of the vocabulary, all of them; those that are not `live` (retired ones, and
    shared ones, whose id is null) are no candidates for a recommendation.
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


# Of the file beside a matrix: its rows in order.
MATRIX_IDS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("live", pa.bool_(), nullable=False),
    ]
)


def matrix_file(side: str) -> str:
    """All vectors of a side as one NumPy array, float32 [rows, D]; where `export.npy` is set."""
    return f"{side}.npy"


def matrix_ids_file(side: str) -> str:
    """The ids of the rows of that array."""
    return f"{side}.ids.parquet"


class Space(Stored):
    """The space that vectors lie in: only vectors of one space are compared by coordinate.

    `id` is that of the run that the space began with. `aligned`: vectors were rotated onto those
    of an earlier run, whose content hash is `aligned_to`; `residual` is the relative distance that
    is left over `ids` ids of both. Otherwise `reason` says why this is a new space.
    """

    id: str
    aligned: bool = False
    aligned_to: str = ""
    residual: Number = 0.0
    ids: int = 0
    reason: str = ""


class VectorSpec(Stored):
    """What the vectors are.

    `dim` counts their coordinates, `model_dim` those of the model (one fewer where there
    are biases). A rating is `mean` + user bias + inner product. `fitted` are the splits that
    the final vectors were fitted to: train, and valid too after a refit.
    """

    objective: str
    similarity: str
    dim: int
    model_dim: int
    bias: bool
    mean: Number
    users: int
    items: int
    metric: str = "inner_product"
    fitted: tuple[str, ...] = ("train",)
    # Absent where no earlier run was to be aligned to: the space is then the run's own.
    space: Space | None = Field(default=None, exclude_if=lambda value: value is None)

    def count(self, side: str) -> int:
        """Rows of "users" or "items"."""
        return self.users if side == "users" else self.items


SPEC = JsonFile("spec.json", VectorSpec)


def _status(c: Counters, n: Count) -> str:
    return f"{n(c['users'])} user and {n(c['items'])} item vectors"


CONTRACT = ArtifactContract(
    status=_status,
    laws=(Law(("users_in",), ("users",)), Law(("items_in",), ("items",))),
    rows={files.folder: side for side, files in FILES.items()},
)
