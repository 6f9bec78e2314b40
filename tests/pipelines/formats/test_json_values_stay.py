"""What a template sees of a JSONL row, and what a carried column holds in the output, is `json.loads(line)`."""

import io
import json
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from models import SamplingParams
from models.engine.scheduling.request import Output
from models.text.tokenizer import Tokenizer
from pipelines.formats.schema import Columns, json_reason
from pipelines.job import InputSpec, Job, ModelSpec, OutputSpec
from pipelines.ledger.unit_files import encode_dead_letters, encode_results
from pipelines.rows.rows import Answers, FinishedUnit, UnitRows
from pipelines.rows.unit import Unit
from pipelines.tasks.generate import GenerateTask
from pipelines.templates.templates import RowTemplate
from pipelines.unit_steps.finish import finish
from pipelines.unit_steps.prepare import Preparer
from pipelines.units.listing import list_sources
from pipelines.units.planning import plan_units
from pipelines.units.reading import UnitReader
from tests.helpers.pipelines.json_corpora import corpora
from tests.helpers.pipelines.making import make_facts, word_tokenizer

PREFIX = "result of millrace: "
PROMPT = "w1"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def job_of(
    path: Path,
    format: Literal["parquet", "jsonl"],
    prompt: str | None = PROMPT,
    *,
    prompt_token_ids: str | None = None,
    columns: tuple[str, ...] | None = None,
) -> Job:
    sampling = SamplingParams(max_tokens=2)
    return Job(
        name="values",
        model=ModelSpec(path="none"),
        task=GenerateTask(prompt=prompt, prompt_token_ids=prompt_token_ids, sampling=sampling),
        input=InputSpec(paths=(str(path),), columns=columns),
        output=OutputSpec(path="none", format=format, prefix=PREFIX),
    )


def run(job: Job, tokenizer: Tokenizer, unit_rows: int = 7) -> tuple[list[UnitRows], list[FinishedUnit]]:
    """Plans, reads, prepares, answers and finishes a corpus: all that a run does with its values, in this process."""
    preparer = Preparer(job, tokenizer, make_facts("causal"))
    units: list[Unit] = []
    plan = plan_units(list_sources(job.input), job.input, preparer.columns, unit_rows=unit_rows, sink=units.extend)
    reader = UnitReader(schema=plan.schema, declared=frozenset(job.input.schema or ()))
    read = [reader.read_unit(unit) for unit in units]
    answer = Output(text="out", token_ids=[7], finish_reason="stop", num_prompt_tokens=1, num_cached_tokens=0)
    finished = []
    for rows in read:
        prepared = preparer.prepare(rows, relative_path="x")
        results = (answer,) * len(prepared.requests)
        finished.append(finish(job, make_facts("causal"), prepared, Answers(results=results, seconds=1)))
    return read, finished


EXAMPLES, ROWS = 100, 20  # 2,000 rows


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(lines=corpora(num_rows=ROWS))
def test_every_row_stays_what_its_line_holds(lines: list[bytes], tokenizer: Tokenizer) -> None:
    expected = [json.loads(line) for line in lines]
    if not any(expected):
        return  # no column at all, which is refused
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.jsonl"
        path.write_bytes(b"\n".join(lines))
        read, finished = run(job_of(path, "jsonl"), tokenizer)
        seen = [row for rows in read for row in rows.rows.values(None)]
        assert list(map(repr, seen)) == list(map(repr, expected))
        assert [repr(row) for unit in finished for row in json_output(unit)] == list(map(repr, expected))
        assert not any(unit.failures for unit in finished)

        _, finished = run(job_of(path, "parquet"), tokenizer)
        assert not any(unit.failures for unit in finished)
        rows = [row for unit in finished for row in parquet_output(unit)]
        names = dict.fromkeys(name for row in expected for name in row)
        for row, given_row in zip(rows, expected, strict=True):
            assert row.keys() == names.keys()
            for name, value in row.items():
                assert same(value, given_row.get(name)), name


def json_output(unit: FinishedUnit) -> list[dict[str, Any]]:
    """The carried columns of a unit's JSONL file, as Python reads them."""
    rows = [json.loads(line) for line in encode_results(unit, "jsonl").splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(PREFIX)} for row in rows]


def parquet_output(unit: FinishedUnit) -> list[dict[str, Any]]:
    """The carried columns of a unit's Parquet file, as pyarrow reads them, JSON text read as what it says."""
    table = pq.read_table(io.BytesIO(encode_results(unit, "parquet")))
    is_json = {field.name for field in table.schema if json_reason(field) is not None}
    return [
        {
            name: json.loads(value) if name in is_json and value is not None else value
            for name, value in row.items()
            if not name.startswith(PREFIX)
        }
        for row in table.to_pylist()
    ]


def same(found: Any, expected: Any) -> bool:
    """Whether an Arrow value is the JSON value: decimals of the same digits, floats to the bit, objects key by key."""
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(same(found[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(found, Decimal):
        return bool(int(found) == expected)
    if isinstance(found, float) and isinstance(expected, int):
        return bool(int(found) == expected)
    return repr(found) == repr(expected)


CASES = {
    "integers_keep_their_digits_beside_floats": (
        [{"order": 4711}, {"order": 1790000000000000001}, {"order": 12.5}],
        "Where is order {{ order }}?",
        ["Where is order 4711?", "Where is order 1790000000000000001?", "Where is order 12.5?"],
    ),
    "an_object_has_its_own_keys_only": (
        [{"meta": {"order": "4711", "late": True}}, {"meta": {"product": "lamp"}}, {"meta": {"order": "22"}}],
        "{{ meta | tojson }}",
        ['{"order": "4711", "late": true}', '{"product": "lamp"}', '{"order": "22"}'],
    ),
    "missing_is_not_null": (
        [{"x": None}, {"y": 1}, {"x": 0}],
        "{{ 'null' if x is none else x if x is defined else 'missing' }}",
        ["null", "missing", "0"],
    ),
    "a_list_is_what_it_was": ([{"x": [65, 66.0]}, {"x": [1, 2]}], "{{ x }}", ["[65, 66.0]", "[1, 2]"]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_template_prints(name: str, tmp_path: Path) -> None:
    rows, template, expected = CASES[name]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec, units = InputSpec(paths=(str(tmp_path / "in.jsonl"),)), list[Unit]()
    plan = plan_units(list_sources(spec), spec, Columns(), unit_rows=9, sink=units.extend)
    found = UnitReader(schema=plan.schema).read_unit(units[0]).rows.values(None)
    assert [
        RowTemplate(template, place="task.prompt").render(row) for row in found if isinstance(row, dict)
    ] == expected


def test_one_float_in_token_ids_spoils_its_own_row_only(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "in.jsonl").write_text('{"ids": [65, 66]}\n{"ids": [65, 66.0]}\n{"ids": [67]}\n')
    job = job_of(tmp_path / "in.jsonl", "parquet", None, prompt_token_ids="ids")
    _, (finished,) = run(job, tokenizer)
    assert [(failure.row, failure.kind, failure.input) for failure in finished.failures] == [
        (1, "invalid_value", b'{"ids": [65, 66.0]}')
    ]
    assert finished.carried.as_json() == [{"ids": [65, 66]}, {"ids": [67]}]


def test_a_dead_letter_holds_the_line_as_it_was(tmp_path: Path, tokenizer: Tokenizer) -> None:
    line = '{"b": 1.10, "id": 12345678901234567890123, "x": "\\ud83d", "y": NaN, "body": null}'
    (tmp_path / "in.jsonl").write_text(f'  {line} \n{{"body": "w2"}}\n')
    _, (finished,) = run(job_of(tmp_path / "in.jsonl", "jsonl", "{{ body }}", columns=()), tokenizer)
    (letter,) = encode_dead_letters(finished.unit, finished.failures).splitlines()
    assert letter.endswith(f'"input":{line}}}'.encode())
