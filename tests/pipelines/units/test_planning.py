"""The planning pass: units in parallel, one schema, and refusals that say what is wrong."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.errors import PlanError
from pipelines.formats.schema import Columns, json_reason
from pipelines.input_formats import jsonl_format
from pipelines.job import InputSpec, Job, ModelSpec, OutputSpec
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import Unit
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.units import planning, scanning
from pipelines.units.listing import list_sources
from pipelines.units.planning import Item, Plan, Result, map_here, plan_units, unit_rows_of
from pipelines.units.reading import UnitReader
from tests.helpers.matrix import first_quick


def cut_small(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    """Has lines planned in stretches of so many bytes, one a task."""
    monkeypatch.setattr(planning, "STRETCH_BYTES", num_bytes)
    monkeypatch.setattr(planning, "_MAX_TASK_BYTES", num_bytes)


small_chunks = pytest.fixture(autouse=False)(lambda monkeypatch: cut_small(monkeypatch, 64))


def plan(
    *paths: Path, columns: Columns | None = None, unit_rows: int = 100, map_tasks: Any = map_here, **spec: Any
) -> tuple[Plan, list[Unit]]:
    units: list[Unit] = []
    input = InputSpec(paths=tuple(map(str, paths)), **spec)
    planned = plan_units(
        list_sources(input), input, columns or Columns(), unit_rows=unit_rows, sink=units.extend, map_tasks=map_tasks
    )
    return planned, units


def requiring(*names: str) -> Columns:
    return Columns(required=frozenset(names))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 150), min_size=1, max_size=30),
    newline=st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    is_ended=st.booleans(),
)
def test_chunks_and_units_cover_a_file_exactly(
    tmp_path: Path, small_chunks: None, lengths: list[int], newline: bytes, is_ended: bool
) -> None:
    rows = [{"a": number, "b": "x" * length} for number, length in enumerate(lengths)]
    text = newline.join(json.dumps(row).encode() for row in rows) + (newline if is_ended else b"")
    (tmp_path / "in.jsonl").write_bytes(text)
    planned, units = plan(tmp_path / "in.jsonl", unit_rows=3, schema={"a": "int64", "b": "string"})
    read = list(UnitReader(schema=planned.schema).read_units(units))
    assert [row for some in read if isinstance(some, UnitRows) for row in some.rows.as_json()] == rows
    assert [unit.first_row for unit in units] == [sum(unit.num_rows for unit in units[:n]) for n in range(len(units))]


@pytest.mark.parametrize(
    ("name", "content"), [("in.jsonl", b""), ("in.jsonl", b"\n \n"), ("in.csv", b""), ("in.csv", b"a,b\n")]
)
def test_an_input_without_rows_says_so(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PlanError, match=rf"the input has no rows: .*{name} holds none; give files that do"):
        plan(tmp_path / name, columns=requiring("a"))


def test_parquet_files_without_rows_say_so(tmp_path: Path) -> None:
    for name in ("1.parquet", "2.parquet"):
        pq.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / name)
    with pytest.raises(
        PlanError, match=r"the input has no rows: all 2 files, of which the first is .*1.parquet, hold none"
    ):
        plan(tmp_path, columns=requiring("a"))


def test_a_task_that_reads_all_columns_has_those_that_are_not_carried(tmp_path: Path) -> None:
    columns = Columns(carried=("a",), reads_all=True)
    (tmp_path / "in.jsonl").write_text('{"a": 1, "b c": "x"}\n{"d": true}\n')
    pq.write_table(pa.table({"a": [1], "b c": ["x"]}), tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("a,b c\n1,x\n")
    seen = {}
    for name in ("in.jsonl", "in.parquet", "in.csv"):
        planned, units = plan(tmp_path / name, columns=columns)
        (rows,) = UnitReader(schema=planned.schema).read_units(units)
        assert isinstance(rows, UnitRows)
        seen[name] = rows.rows.values(columns.read)
    assert seen["in.jsonl"] == [{"a": 1, "b c": "x"}, {"d": True}]
    assert seen["in.parquet"] == [{"a": 1, "b c": "x"}]
    assert seen["in.csv"] == [{"a": "1", "b c": "x"}]


def test_a_line_may_be_longer_than_many_chunks(tmp_path: Path, small_chunks: None) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"a": 1}\n{"a": "' + b"x" * 1000 + b'"}\n{"a": 2}\n{"a": 3}')
    planned, units = plan(tmp_path / "in.jsonl")
    assert [(unit.offset, unit.num_bytes, unit.num_rows) for unit in units] == [
        (0, 1019, 2),
        (1019, 9, 1),
        (1028, 8, 1),
    ]
    assert json_reason(planned.schema.field("a")) == "integers beside texts"


def test_tasks_run_anywhere_and_are_taken_as_needed(tmp_path: Path, small_chunks: None) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"a": 1}\n' * 1000)
    taken: list[object] = []

    def map_some(task: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        for item in items:
            taken.append(item)
            yield task(item)

    planned, units = plan(tmp_path / "in.jsonl", map_tasks=map_some)
    assert planned.num_rows == 1000
    num_tasks = len(taken)
    assert num_tasks > 100
    input = InputSpec(paths=(str(tmp_path / "in.jsonl"),))
    taken.clear()
    plan_units(list_sources(input), input, Columns(), unit_rows=2, limit=5, sink=units.extend, map_tasks=map_some)
    assert len(taken) == 1


def test_small_files_share_a_task(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.jsonl").write_bytes(b'{"a": 1}\n')
    sizes: list[int] = []

    def map_some(task: Callable[[Any], Result], items: Iterable[Any]) -> Iterator[Result]:
        for item in items:
            sizes.append(len(item))
            yield task(item)

    planned, units = plan(tmp_path, map_tasks=map_some)
    assert sizes == [10]
    assert [(unit.index, unit.relative_path, unit.first_row) for unit in units][3] == (3, "3.jsonl", 0)
    assert planned.num_files == 10


def test_units_of_parquet_stay_within_a_row_group_and_8_mib(tmp_path: Path) -> None:
    table = pa.table({"a": ["x" * 1000 + str(number) for number in range(20_000)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=15_000, use_dictionary=False, compression="none")
    _, units = plan(tmp_path / "in.parquet", unit_rows=100_000)
    assert {unit.row_group for unit in units} == {0, 1}
    assert all(unit.num_bytes <= 8 << 20 for unit in units)
    assert sum(unit.num_rows for unit in units) == 20_000
    assert len(units) == 3


def test_units_of_jsonl_stay_within_8_mib(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes((b'{"a": "' + b"x" * 100_000 + b'"}\n') * 200)
    _, units = plan(tmp_path / "in.jsonl", unit_rows=4096)
    assert [unit.num_rows for unit in units] == [83, 83, 34]


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.parquet"])
def test_a_missing_column_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "in.parquet":
        pq.write_table(pa.table({"a": [1], "b": [2]}), path)
    else:
        path.write_bytes(b'{"a": 1, "b": 2}\n' if name == "in.jsonl" else b"a,b\n1,2\n")
    for columns in (requiring("body"), Columns(carried=("body",), required=frozenset({"a"}))):
        with pytest.raises(PlanError, match=r"has no column body; it has: a, b$"):
            plan(path, columns=columns)


def test_a_jsonl_column_may_be_missing_in_some_rows_and_files(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_bytes(b'{"a": 1}\n')
    (tmp_path / "2.jsonl").write_bytes(b'{"b": "x"}\n{"a": 2.5}\n')
    planned, _ = plan(tmp_path, columns=requiring("b"))
    assert planned.schema.to_string() == "a: double\nb: string"


def test_an_optional_column_is_read_if_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"a": 1, "b": 2, "c": 3}\n')
    columns = Columns(carried=("a",), optional=frozenset({"b", "x"}))
    assert plan(tmp_path, columns=columns)[0].schema.names == ["a", "b"]


def test_declared_types_replace_inference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.jsonl").write_bytes(b'{"a": 1, "b": {"k": 1}}\n')
    planned, _ = plan(tmp_path, schema={"b": "map<string, double>", "c": "date32"})
    expected = pa.schema([("a", pa.int64())]).append(pa.field("b", pa.map_(pa.string(), pa.float64())))
    expected = expected.append(pa.field("c", pa.date32()))
    assert planned.schema == expected
    monkeypatch.setattr(jsonl_format, "shape_of_lines", None)
    planned, _ = plan(tmp_path, schema={"a": "string"}, columns=Columns(carried=("a",)))
    assert planned.schema == pa.schema({"a": pa.string()})


def test_incompatible_files_are_refused_by_name_and_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "2.parquet")
    with pytest.raises(PlanError, match=r"column 'a' is int64 in .*1\.parquet and string in .*2\.parquet"):
        plan(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("in.parquet", b"no parquet", r"cannot read .*in\.parquet: .*magic bytes"),
        ("in.jsonl.gz", b"no gzip", r"cannot read .*in\.jsonl\.gz: .*incorrect header"),
        ("in.json", b'\n [{"a": 1}]', "one JSON array; one object a line is needed"),
        ("in.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16; convert it to UTF-8"),
        ("in.csv", b"a,a\n", "gives column 'a' twice"),
        ("in.csv", b"a,\xff\n", "header of .* cannot be read"),
        ("in.jsonl", b"nothing\nhere\n", "reads no column"),
    ],
)
def test_a_file_that_cannot_be_planned_is_named(
    tmp_path: Path, name: str, content: bytes, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "with_retries", lambda read: read())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PlanError, match=text):
        plan(tmp_path / name)


def test_objects_whose_names_are_values_are_json_text_and_take_little_memory(tmp_path: Path) -> None:
    lines = (
        json.dumps({"id": number, "scores": {f"u{number * 7919 % 10_000_000:07d}": 1}}) for number in range(16_000)
    )
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    tracemalloc.start()
    planned, _ = plan(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "same keys" in (json_reason(planned.schema.field("scores")) or "")
    assert peak < 20e6
    assert plan(tmp_path, schema={"scores": "map<string, int64>"})[0].schema.field("scores").type.num_fields == 1


PLANNING = """
import json, re, sys, time
from pathlib import Path
from pipelines.formats.schema import Columns
from pipelines.job import InputSpec
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units

input = InputSpec(paths=(sys.argv[1],))
plan = plan_units(list_sources(input), input, Columns(), unit_rows=256, sink=lambda units: None)
peak = re.search("VmHWM:\\\\s+([0-9]+) kB", Path("/proc/self/status").read_text())
print(json.dumps([plan.num_rows, int(peak[1]) * 1024, time.process_time()]))
"""
"""Its own peak: `ru_maxrss` is never below that of the process it was started from."""


def cost_of_planning(path: Path) -> tuple[int, int, float]:
    """Rows, the most memory in bytes and the processor's seconds of a process that plans a file."""
    done = subprocess.run([sys.executable, "-c", PLANNING, str(path)], capture_output=True, text=True, check=True)
    num_rows, num_bytes, seconds = json.loads(done.stdout)
    return num_rows, num_bytes, seconds


@pytest.mark.parametrize(
    "shape",
    first_quick(
        [
            lambda key: {key: 1},
            lambda key: {"deep": {"er": {key: {"a": [1]}}}},
            lambda key: [{key: 1}, {f"{key}x": "y"}],
        ]
    ),
    ids=["objects", "objects within objects", "lists of objects"],
)
def test_planning_takes_time_and_memory_in_proportion(shape: Callable[[str], Any], tmp_path: Path) -> None:
    """16,000 lines with a key of their own each, against one of them, in processes of their own."""
    lines = [json.dumps({"id": row, "scores": shape(f"u{row * 7919 % 10_000_000:07d}")}) for row in range(16_000)]
    (tmp_path / "one.jsonl").write_text(lines[0])
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    _, bytes_of_one, seconds_of_one = cost_of_planning(tmp_path / "one.jsonl")
    num_rows, num_bytes, seconds = cost_of_planning(tmp_path / "all.jsonl")
    assert num_rows == 16_000
    assert num_bytes - bytes_of_one < 300e6
    assert seconds - seconds_of_one < 2.0


def test_names_of_columns_that_are_values_are_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({f"u{number}": 1, "id": 1}) + "\n" for number in range(10_001))
    )
    with pytest.raises(PlanError, match=r"over 10000 different columns.*name those to be carried in input\.columns"):
        plan(tmp_path)
    assert plan(tmp_path, columns=Columns(carried=("id",)))[0].schema.names == ["id"]


def test_files_without_rows_have_no_units(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    planned, units = plan(tmp_path, columns=requiring("a"))
    assert (planned.num_files, planned.num_rows, [unit.relative_path for unit in units]) == (2, 1, ["1.parquet"])


def test_empty_text_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_bytes(b"")
    (tmp_path / "1.csv").write_bytes(b"a,b\r\n")
    (tmp_path / "2.csv").write_bytes(b"\r\na,b\r\n1,2\r\n")
    planned, units = plan(tmp_path, columns=requiring("a"))
    assert [(unit.relative_path, unit.offset, unit.num_rows) for unit in units] == [("2.csv", 7, 1)]
    assert planned.schema == pa.schema({"a": pa.string(), "b": pa.string()})


def test_the_schema_does_not_depend_on_how_the_work_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        json.dumps({"n": n if n % 3 else n / 7, "s": str(n), f"f{n % 5}": None if n % 2 else [n]}) for n in range(300)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    whole, _ = plan(tmp_path)
    cut_small(monkeypatch, 50)
    assert plan(tmp_path)[0].schema == whole.schema


def test_units_are_larger_for_one_pass_tasks() -> None:
    def rows(task: GenerateTask | ClassifyTask, unit_rows: int | None = None) -> int:
        return unit_rows_of(
            Job(
                name="j",
                model=ModelSpec(path="m"),
                task=task,
                input=InputSpec(paths=("i",)),
                output=OutputSpec(path="o"),
                unit_rows=unit_rows,
            )
        )

    assert (rows(GenerateTask(prompt="p")), rows(ClassifyTask(text="t")), rows(ClassifyTask(text="t"), 7)) == (
        256,
        4096,
        7,
    )
