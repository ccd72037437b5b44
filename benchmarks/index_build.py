"""An index of 10 M items built in shards under a limit of memory, driver and workers together.

    python benchmarks/index_build.py [--rows 10000000] [--dim 64] [--limit 8] [--json]

Clustered unit vectors (the r-th of 20,000 directions in proportion to r ** -0.5) are written as
the artifact of `export`, part by part; the stage `index` then runs on them as in any run, with two
workers, and selects what reaches the target recall@10 on users it was not tuned with. With
--beside-one the same is built as one file as well, without a limit, to see what shards cost a
search. Needs about 600 bytes of disk an item in --folder, deleted at the end. Prints a table; with
--json one flat JSON object last.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from harness.children import call, serve
from harness.command_line import add_folder, finish, parser_of

from embedmill.pipeline.config import parse
from embedmill.pipeline.index import open_index
from embedmill.pipeline.index.faiss_threads import faiss_threads
from embedmill.pipeline.log import Quiet
from embedmill.pipeline.store.run import Run, open_run
from embedmill.pipeline.views.vectors import Vectors
from embedmill.schemas.export import FILES, ROWS_PER_FILE, SPEC, VectorSpec, embeddings
from embedmill.schemas.shards import SHARD

Floats = npt.NDArray[np.float32]

_CENTRES = 20_000
_SPREAD = 0.1  # of a vector around its direction, each coordinate
_USERS = 4000  # half of them tune where 2,000 are asked for each
_ASKED = 3.0  # seconds of searching that queries per second are taken from


def written(root: str, name: str, args: argparse.Namespace) -> Run:
    """A run below `root` whose stages up to `export` are there, those before it all but empty."""
    index = {
        "kind": args.kind, "recall_at_10": args.recall, "queries": _USERS // 2,
        "shards": args.shards, "launcher": args.launcher, "workers": args.workers,
    }  # fmt: skip
    tree = {"run": {"name": name, "root": root, "partitions": 1}, "index": index}
    run = Run(parse({**tree, "events": {"paths": "none", "time": "time"}}))
    run.storage.write("config.json", run.config.model_dump_json().encode())
    nothing = ("rows_in", "events", "rejected", "merged", "rejects_kept")
    run.writer("events").commit(dict.fromkeys(nothing, 0))
    sides = [f"{side}{end}" for side in ("users", "items")
             for end in ("", "_live", "_retired", "_shared")]  # fmt: skip
    run.writer("vocab").commit(
        dict.fromkeys(("events_in", "events_kept", "events_dropped", *sides), 0)
    )
    _shards(run)
    run.writer("train").commit({"users": 0, "items": 0})
    return run


def _shards(run: Run) -> None:
    """Every user has one event to learn from and one that is held out."""
    out, row = run.writer("shards"), np.arange(_USERS)
    for split, count in (("train", _USERS), ("valid", 0), ("test", _USERS)):
        table = pa.table([
            pa.array(row[:count]), pa.array(row[:count]), pa.nulls(count, pa.int64()),
            pa.array(np.ones(count, np.float32)), pa.array(row[:count]),
        ], schema=SHARD)  # fmt: skip
        out.write_table(f"{split}/part-00000.parquet", table)
    out.commit({"events_in": 2 * _USERS, "dropped": 0, "train": _USERS, "valid": 0, "test": _USERS})


def exported(run: Run, rows: int, dim: int) -> None:
    """The artifact of `export`: users and items of the same clusters, a part at a time."""
    out, centre = run.writer("export"), np.random.default_rng(1).standard_normal((_CENTRES, dim))
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    share = np.arange(1, _CENTRES + 1) ** -0.5
    for place, (side, count) in enumerate((("users", _USERS), ("items", rows))):
        for number, first in enumerate(range(0, count, ROWS_PER_FILE)):
            draw = np.random.default_rng((2, place, number))
            row = np.arange(first, min(count, first + ROWS_PER_FILE))
            own = draw.choice(_CENTRES, len(row), p=share / share.sum())
            vector_ND = _SPREAD * draw.standard_normal((len(row), dim), np.float32)
            vector_ND += centre[own].astype(np.float32)
            vector_ND /= np.linalg.norm(vector_ND, axis=1, keepdims=True)
            out.write_table(FILES[side].path(number), _table(side, row, vector_ND))
    spec = VectorSpec(
        objective="softmax", similarity="cosine", dim=dim, model_dim=dim, bias=False, mean=0.0,
        users=_USERS, items=rows,
    )  # fmt: skip
    out.write_json(SPEC, spec)
    out.commit({"users_in": _USERS, "users": _USERS, "items_in": rows, "items": rows})


def _table(side: str, row: Any, vector_ND: Floats) -> pa.Table:
    schema = embeddings(vector_ND.shape[1], bias=False)
    ids = pc.binary_join_element_wise(side[0], pc.cast(pa.array(row), pa.string()), "")
    flat = pa.array(np.ascontiguousarray(vector_ND, np.float32).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type)
    ones, live = pa.array(np.ones(len(row), np.int64)), pa.array(np.ones(len(row), bool))
    columns = {"row": pa.array(row), "id": ids, "count": ones, "live": live, "vector": vectors}
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


class Said(Quiet):
    """Notes go to the standard error."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)


def index_stage(folder: str) -> dict[str, float]:
    """Stage `index` of the run at `folder`, as jobs/index.py runs it."""
    import embedmill.jobs.index

    run, began = open_run(folder), time.perf_counter()
    embedmill.jobs.index.build(run, run.writer("index"), Said())
    return {"seconds": time.perf_counter() - began}


def built(run: Run, limit_bytes: int) -> dict[str, Any]:
    """Build it under a limit, 0 for none; what it took and what came of it."""
    result = call(__file__, "index_stage", run.storage.root, limit_bytes=limit_bytes)
    # Without files' pages, and with those that were cached while there was room.
    peaks: dict[str, Any] = {"held_bytes": result.resident_bytes, "peak_bytes": result.peak_bytes}
    peaks["limit_by"] = result.limited_by
    return {"seconds": result.value["seconds"], **peaks, **_found(run)}


def _found(run: Run) -> dict[str, Any]:
    """Kind, recall, bytes, queries per second of the finished index."""
    artifact = run.artifact("index")
    spec, told = artifact.read_json("spec.json"), artifact.read_json("recall.json")
    verified = (told["target"] or {}).get("verified", {})
    return {
        "kind": spec["kind"], "shards": len(spec.get("shards") or [None]),
        "bytes": spec["bytes"], "recall@10": told["recall@10"],
        "recall@10_low": verified.get("low"), "queries": told["queries"],
        "ms_per_query": artifact.manifest.measured["ms_per_query"], "qps": _speed(run),
        **{f"parameters.{key}": value for key, value in spec["parameters"].items()},
    }  # fmt: skip


def _speed(run: Run) -> float:
    """Queries per second, all users at once on two threads, for a few seconds."""
    reader = open_index(run.artifact("index"))
    user_BD = Vectors.of(run.artifact("export"), "users").load()
    with faiss_threads(2):
        reader.index.search(user_BD, 10)
        began, asked = time.perf_counter(), 0
        while time.perf_counter() - began < _ASKED:
            reader.index.search(user_BD, 10)
            asked += len(user_BD)
    return asked / (time.perf_counter() - began)


def compared(args: argparse.Namespace) -> dict[str, Any]:
    """The build in shards, and beside it that of one file; flat."""
    flat: dict[str, Any] = {
        "rows": args.rows, "dim": args.dim, "vector_bytes": args.rows * args.dim * 4,
        "limit_bytes": int(args.limit * 2**30),
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-", dir=args.folder) as root:
        began = time.perf_counter()
        run = written(root, "shards", args)
        exported(run, args.rows, args.dim)
        flat["written_seconds"] = time.perf_counter() - began
        flat |= built(run, flat["limit_bytes"])
        if args.beside_one:
            config = run.config.index.model_copy(update={"shards": 1})
            one = Run(run.config.model_copy(update={"index": config}))
            run.discard("index")
            one.storage.write("config.json", one.config.model_dump_json().encode())
            flat |= {f"one.{key}": value for key, value in built(one, 0).items()}
            flat["qps_over_one"] = flat["qps"] / flat["one.qps"]
            flat["seconds_over_one"] = flat["seconds"] / flat["one.seconds"]
    return flat


def shown(flat: dict[str, Any]) -> None:
    print(f"{flat['rows']:,} x {flat['dim']}, {flat['vector_bytes'] / 2**30:.2f} GiB of vectors, "
          f"limit {flat['limit_bytes'] / 2**30:g} GiB")  # fmt: skip
    print(f"by {flat['limit_by']}")
    print(f"{'':6} {'kind':<9} {'files':>5} {'seconds':>8} {'held GiB':>9} {'peak GiB':>9} "
          f"{'recall@10':>9} {'GB':>6} {'qps':>7}")  # fmt: skip
    for name, at in (("shards", ""), ("one", "one.")):
        if f"{at}kind" in flat:
            held, peak = (flat[f"{at}{key}_bytes"] / 2**30 for key in ("held", "peak"))
            print(f"{name:6} {flat[f'{at}kind']:<9} {flat[f'{at}shards']:>5} "
                  f"{flat[f'{at}seconds']:>8.0f} {held:>9.2f} {peak:>9.2f} "
                  f"{flat[f'{at}recall@10']:>9.4f} {flat[f'{at}bytes'] / 1e9:>6.2f} "
                  f"{flat[f'{at}qps']:>7,.0f}")  # fmt: skip
    if "qps_over_one" in flat:
        print(f"shards over one file: {flat['qps_over_one']:.2f} of the queries per second, "
              f"{flat['seconds_over_one']:.2f} of the time to build")  # fmt: skip


def main() -> None:
    serve({"index_stage": index_stage})
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--limit", type=float, default=8.0, help="GiB of driver and workers")
    parser.add_argument("--recall", type=float, default=0.95, help="target recall@10")
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--shards", type=int, default=0, help="0: by index.shard_bytes")
    parser.add_argument("--launcher", choices=("inline", "processes", "ray"), default="processes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--beside-one", action="store_true", help="one file, without a limit, too")
    add_folder(parser)
    args = parser.parse_args()
    flat = compared(args)
    shown(flat)
    finish(args, flat)


if __name__ == "__main__":
    main()
