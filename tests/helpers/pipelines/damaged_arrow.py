"""Arrow files with bytes changed at random, planned and read one after the other: `python -m tests.helpers.pipelines.damaged_arrow N`.

In a process of its own, since a reader that believes a damaged offset does not raise: it is killed. Prints how many were refused, how many
units could not be read, and how many files came through.
"""

import io
import logging
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc as ipc

from pipelines.errors import PlanError
from pipelines.formats.schema import Columns
from pipelines.job import InputSpec
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader

NUM_ROWS = 40
_COMPUTE: Any = pc


def table() -> pa.Table:
    """Columns of the types whose values are found by offsets, sizes or indices."""
    rows = range(NUM_ROWS)
    lists = [["q" * length for length in range(row % 5)] for row in rows]
    return pa.table(
        {
            "text": pa.array([None if row % 7 == 0 else "x" * row for row in rows]),
            "large": pa.array(["y" * row for row in rows], pa.large_string()),
            "view": pa.array(["z" * row for row in rows], pa.string_view()),
            "dictionary": pa.array([f"d{row % 4}" for row in rows]).dictionary_encode(),
            "struct": pa.array([{"a": "x" * row, "b": [row] * 3} if row % 5 else None for row in rows]),
            "map": pa.array(
                [[(f"k{key}", "v") for key in range(row % 4)] for row in rows], pa.map_(pa.string(), pa.string())
            ),
            "list": pa.array(lists),
            "list_view": pa.array(lists, pa.list_view(pa.string())),
            "runs": _COMPUTE.run_end_encode(pa.array([f"r{row // 10}" for row in rows])),
        }
    )


def damaged(seed: int) -> bytes:
    """A file or a stream, with dictionaries or not, compressed or not, cut off or with some of its bytes changed."""
    draw, buffer = random.Random(seed), io.BytesIO()
    rows = table() if draw.random() < 0.5 else table().drop_columns(["dictionary"])
    make: Any = draw.choice([ipc.new_file, ipc.new_stream])
    compression: Any = draw.choice([None, None, "lz4"])
    with make(buffer, rows.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(rows, max_chunksize=17)
    content = bytearray(buffer.getvalue())
    if draw.random() < 0.15:
        return bytes(content[: draw.randrange(len(content))])
    for _ in range(draw.choice([1, 1, 3, 20])):
        place = draw.randrange(len(content))
        content[place] = draw.choice([0, 255, 128, content[place] ^ (1 << draw.randrange(8))])
    return bytes(content)


def read(path: Path) -> str:
    """Plans and reads a file whole, and says what came of it."""
    spec, units = InputSpec(paths=(str(path),)), list[Unit]()
    try:
        plan = plan_units(list_sources(spec), spec, Columns(), unit_rows=9, sink=units.extend)
    except PlanError:
        return "refused"
    found = list(UnitReader(schema=plan.schema).read_units(units, sleep=lambda seconds: None))
    for rows in found:
        if isinstance(rows, UnreadableUnit):
            assert not rows.is_fault, rows.message
        else:
            rows.rows.as_json()
    return "unreadable" if any(isinstance(rows, UnreadableUnit) for rows in found) else "read"


def main(num_files: int) -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        counts: Counter[str] = Counter()
        for seed in range(num_files):
            path = Path(folder) / "in.arrow"
            path.write_bytes(damaged(seed))
            counts[read(path)] += 1
    sys.stdout.write(f"{dict(counts)}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
