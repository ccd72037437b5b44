"""DuckDB 1.5 with its extension vss makes the index of the format. Run by `make test-stores`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedmill.pipeline.formats import ExportOptions, write
from embedmill.pipeline.log import Quiet
from tests.support.runs import clusters, finished

# A folder of packages: an extension comes later than its DuckDB, so that both are older ones.
FOLDER = os.environ.get("DUCKDB_WITH_VSS", "")
SEARCH = """
import json, sys
from pathlib import Path
import duckdb, duckdb_extension_vss
(extension,) = Path(duckdb_extension_vss.__file__).parent.glob("extensions/*/*.duckdb_extension")
script = Path("items.sql").read_text().replace("INSTALL vss;", "")
database = duckdb.connect("items.duckdb")
database.execute(script.replace("LOAD vss;", f"LOAD '{extension}';"))
vector = json.load(sys.stdin)
query = (
    "SELECT id FROM items "
    f"ORDER BY array_negative_inner_product(vector, ?::FLOAT[{len(vector)}]) LIMIT 5"
)
assert "HNSW_INDEX_SCAN" in database.execute("EXPLAIN " + query, [vector]).fetchone()[1]
print(json.dumps([row[0] for row in database.execute(query, [vector]).fetchall()]))
"""


@pytest.mark.skipif(not FOLDER, reason="`make test-stores` runs it")
def test_an_older_duckdb_makes_the_index_and_searches_it(tmp_path: Path) -> None:
    world = clusters()
    world.model = {"similarity": "dot"}
    run = finished(world, tmp_path / "runs", index={"kind": "flat"})
    write(run, ExportOptions("duckdb"), str(tmp_path / "out"), Quiet())
    query_D = world.user_ND[0].astype("<f4")
    done = subprocess.run(
        [sys.executable, "-c", SEARCH], cwd=tmp_path / "out", check=True, text=True,
        env={**os.environ, "PYTHONPATH": FOLDER},
        input=json.dumps(query_D.tolist()), stdout=subprocess.PIPE,
    )  # fmt: skip
    order = np.argsort(-(world.item_ND.astype("<f4") @ query_D))
    assert json.loads(done.stdout) == [world.items[i] for i in order[:5]]
