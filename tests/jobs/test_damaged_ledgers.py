"""Every file of a ledger, damaged in every way: `run`, `check` and `report` end with 1 and a sentence, and no row is ever said to be there
that is not."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.spec.job import load_spec
from pipelines.formats.schema import Columns
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.ledger.ledger import Ledger
from pipelines.rows.rows import FinishedUnit
from pipelines.units.digest import with_digests
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader

pytestmark = pytest.mark.slow

NUM_ROWS, UNIT_ROWS = 24, 8
RECEIPT = "receipts/part-00000001.json"
VALUES: tuple[object, ...] = (None, True, -1, 7, 1.5, 10**30, "", "x", [], {}, [[[]]])

Damage = tuple[str, str, bytes | None]
"""What is done, to which file, and its content then; None: a folder takes its place."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path]) -> Path:
    """A folder with `spec.yaml` and `whole`, the output of a run that is complete."""
    folder = tmp_path_factory.mktemp("damaged")
    corpus = folder / "in.jsonl"
    corpus.write_text("".join(json.dumps({"id": row, "body": f"row {row}"}) + "\n" for row in range(NUM_ROWS)))
    spec = {
        "name": "j",
        "model": {"path": str(tiny_checkpoint("sequence-classification"))},
        "task": {"kind": "classify", "text": "{{ body }}"},
        "input": {"paths": [str(corpus)]},
        "output": {"path": str(folder / "out")},
        "unit_rows": UNIT_ROWS,
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    complete(folder / "spec.yaml")
    shutil.move(folder / "out", folder / "whole")
    return folder


def complete(spec: Path) -> None:
    """A run of the job without engines."""
    job = load_spec(spec).job
    files = with_digests(list_sources(job.input))
    with Ledger.open(job, fingerprint_of(job, files)) as ledger:
        record = ledger.write_plan(lambda sink: plan_units(files, job.input, Columns(), unit_rows=UNIT_ROWS, sink=sink))
        reader = UnitReader(schema=record.schema)
        for unit in ledger.pending_units(ledger.survey()):
            results: dict[str, list[Any]] = {
                "label": ["a"],
                "score": [0.5],
                "prompt_tokens": [3],
                "completion_tokens": [0],
            }
            work = FinishedUnit(
                unit=unit,
                carried=reader.read_unit(unit).rows,
                results=pa.table({name: values * unit.num_rows for name, values in results.items()}),
                failures=(),
                prompt_tokens=24,
                cached_tokens=0,
                completion_tokens=0,
                seconds=0.5,
            )
            ledger.committer().commit(work)


@pytest.fixture
def out(place: Path) -> Iterator[Path]:
    """The output of a complete run, anew."""
    shutil.copytree(place / "whole", place / "out")
    yield place / "out"
    shutil.rmtree(place / "out")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def cut(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Every way in which a file can be cut or overwritten as a whole."""
    yield "empty", b""
    for share in (0.1, 0.5, 0.9):
        yield f"cut to {share:.0%}", content[: int(len(content) * share)]
    yield "without its last byte", content[:-1]
    yield (
        "a byte changed",
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :],
    )
    for other in (
        b"[]",
        b"null",
        b"{}",
        b"NaN",
        b'{"a": NaN}',
        b"\xff\xfe",
        b"{" * 5000,
        b"[" * 500 + b"]" * 500,
        b"PAR1",
    ):
        yield f"{other[:10]!r} in its place", other


def changed_values(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object without each of its keys, and with other values under them; down to the objects in it."""
    for key, value in values.items():
        yield f"without {key}", {name: kept for name, kept in values.items() if name != key}
        for other in VALUES:
            if (other, type(other)) != (value, type(value)):
                yield f"{key}: {other!r}", {**values, key: other}
        if isinstance(value, dict):
            for what, inner in changed_values(value):
                yield f"{key}.{what}", {**values, key: inner}


def damages(out: Path, name: str, *, every: int = 1) -> Iterator[Damage]:
    """All that can happen to a JSON file of the ledger; of the values that may change, one of `every` so many."""
    content = (out / name).read_bytes()
    yield from ((what, name, other) for what, other in cut(content))
    for what, values in islice(changed_values(json.loads(content)), 0, None, every):
        if what != "without seal":  # which is how versions before wrote it
            yield what, name, json.dumps(values).encode()
    yield "a folder in its place", name, None


def complaints(place: Path, arguments: Callable[[Path], tuple[str | Path, ...]], found: Iterator[Damage]) -> list[str]:
    """Does each damage to a whole output, runs a command on it, and tells of those that did not end as they should."""
    wrong, out = [], place / "out"
    for what, name, content in found:
        kept = (out / name).read_bytes() if (out / name).exists() else None
        if content is None:
            (out / name).unlink(missing_ok=True)
            (out / name).mkdir()
        else:
            (out / name).write_bytes(content)
        result = invoke(*arguments(place))
        if not is_told(result, name):
            wrong.append(f"{name}, {what}: {result.exit_code} {result.output!r} {result.exception!r}")
        if (out / name).is_dir():
            (out / name).rmdir()
        (out / name).unlink(missing_ok=True)
        if kept is not None:
            (out / name).write_bytes(kept)
    return wrong


def is_told(result: Result, name: str) -> bool:
    """Exit status 1, by decision and not by an exception, and the file is named in one line on stderr, or among the findings of `check`."""
    if result.exit_code != 1 or not isinstance(result.exception, SystemExit) or name not in result.output:
        return False
    said = [line for line in result.stderr.splitlines() if line.startswith("millrace:")]
    return len(said) == 1 if result.stderr else bool(result.stdout)


def check(place: Path) -> tuple[str | Path, ...]:
    return "check", place / "out"


def report(place: Path) -> tuple[str | Path, ...]:
    return "report", place / "out"


def run(place: Path) -> tuple[str | Path, ...]:
    return "run", place / "spec.yaml"


TABLE = "units.parquet"
LISTED = "errors/units.jsonl"
LINES = (
    b"{",
    b"[]\n",
    b"\xff\n",
    b"NaN\n",
    b'{"unit": "x"}\n',
    b'{"unit": 1, "path": 5, "first_row": 0, "num_rows": 1, "message": ""}\n',
)


@pytest.mark.parametrize(
    ("command", "every"),
    [
        (check, 17),  # no divisor of how many values there are, so that each has its turn
        (report, 97),
        pytest.param(check, 1, marks=pytest.mark.faults),
        pytest.param(report, 7, marks=pytest.mark.faults),
    ],
)
@pytest.mark.parametrize("name", ["run.json", RECEIPT])
def test_changes_that_no_seal_tells_end_without_a_traceback(
    place: Path, out: Path, command: Callable[[Path], tuple[str | Path, ...]], every: int, name: str
) -> None:
    """Files of a version before: some of what is changed is as good as what was there."""
    values = json.loads((out / name).read_bytes())
    del values["seal"]
    for _, changed in islice(changed_values(values), 0, None, every):
        (out / name).write_text(json.dumps(changed))
        result = invoke(*command(place))
        assert (result.exit_code, type(result.exception)) in ((0, type(None)), (1, SystemExit)), (
            changed,
            result.output,
        )


def table_damages(out: Path) -> Iterator[Damage]:
    yield from ((what, TABLE, content) for what, content in cut((out / TABLE).read_bytes()))
    yield "a folder in its place", TABLE, None


def list_damages() -> Iterator[Damage]:
    yield from ((repr(content), LISTED, content) for content in LINES)
    yield "a folder in its place", LISTED, None


def test_a_whole_ledger_is_said_to_be_whole(place: Path, out: Path) -> None:
    assert [invoke(*command(place)).exit_code for command in (check, report, run)] == [0, 0, 0]
    assert "24 of 24 rows committed" in invoke(*run(place)).stderr


@pytest.mark.parametrize("every", [13, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.parametrize("command", [check, report])
@pytest.mark.parametrize("name", ["run.json", RECEIPT])
def test_a_damaged_file_is_one_sentence_of_check_and_report(
    place: Path, out: Path, command: Callable[[Path], tuple[str | Path, ...]], name: str, every: int
) -> None:
    """One seal tells of them all."""
    assert complaints(place, command, damages(out, name, every=every)) == []


@pytest.mark.parametrize("command", [check, report])
def test_damaged_tables_and_lists_are_one_sentence_of_check_and_report(
    place: Path, out: Path, command: Callable[[Path], tuple[str | Path, ...]]
) -> None:
    assert complaints(place, command, table_damages(out)) == []
    assert complaints(place, command, list_damages()) == []


def test_a_damaged_lease_is_one_sentence_of_check(place: Path, out: Path) -> None:
    assert complaints(place, check, damages_of_lease(out)) == []


def damages_of_lease(out: Path) -> Iterator[Damage]:
    """A lease has no seal: what is a lease counts, whoever it names."""
    content = (out / "lease.json").read_bytes()
    yield from ((what, "lease.json", other) for what, other in cut(content) if what != "a byte changed")
    values = json.loads(content)
    for key in values:
        yield (
            f"without {key}",
            "lease.json",
            json.dumps({name: values[name] for name in values if name != key}).encode(),
        )
        yield f"{key}: []", "lease.json", json.dumps({**values, key: []}).encode()
    yield "a folder in its place", "lease.json", None


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stride", [113, pytest.param(5, marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", ["run.json", RECEIPT])
def test_a_run_stops_at_every_kind_of_damage_of_its_records(place: Path, out: Path, name: str, stride: int) -> None:
    """Some of the changes of single values: a run takes longer to begin than a check, which sees more of them."""
    assert complaints(place, run, islice(damages(out, name), 0, None, stride)) == []


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.faults)])
def test_a_run_stops_at_every_kind_of_damage_of_its_tables(place: Path, out: Path, stride: int) -> None:
    assert complaints(place, run, islice(chain(table_damages(out), list_damages()), 0, None, stride)) == []


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.faults)])
def test_a_run_stops_at_every_kind_of_damage_of_its_lease(place: Path, out: Path, stride: int) -> None:
    assert complaints(place, run, islice(damages_of_lease(out), 0, None, stride)) == []


def test_damage_is_repaired_by_what_its_sentence_says(place: Path, out: Path) -> None:
    values = json.loads((out / RECEIPT).read_bytes())
    (out / RECEIPT).write_text(json.dumps({**values, "num_written": 7, "num_failed": 1}))
    stopped = invoke(*run(place))
    assert stopped.exit_code == 1
    assert (
        "`millrace check OUT --repair` forgets the receipts of damaged units, and `millrace run` computes them again"
        in stopped.stderr
    )
    repaired = invoke("check", out, "--repair")
    assert repaired.exit_code == 1
    assert f"removed {RECEIPT}" in repaired.stdout
    assert "run the job again" in repaired.stdout
    assert "not committed: it has no receipt" in invoke(*check(place)).stdout
