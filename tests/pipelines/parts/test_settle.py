"""Parts settled when a job is opened: on rows of its input, or as an earlier run has them; and templates as if written by hand."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import DamageError
from pipelines.job import EngineSpec, Escalation, InputSpec, Job, ModelSpec, OutputSpec
from pipelines.ledger.fingerprint import differences, fingerprint_of
from pipelines.ledger.receipts import Shard
from pipelines.ledger.run_record import RUN, RunRecord
from pipelines.parts import settle
from pipelines.parts.settle import SettledJob, settle_parts
from pipelines.tasks.embed import EmbedTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.several.task import SeveralTask
from pipelines.templates.templates import RowTemplate
from pipelines.units.listing import Sources, find_sources
from pipelines.units.planning import Plan

PARTS = ("Review: {{ body }}", "Product: {{ product }}", "Shop: {{ shop | upper }}")
WORST_TO_BEST = (2, 1, 0)


def rows(num_rows: int = 300) -> Iterator[dict[str, Any]]:
    draw = random.Random(0)
    for number in range(num_rows):
        yield {"body": f"review {number} " + "x" * 40, "product": draw.randint(10, 29), "shop": draw.choice("abc") * 20}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    corpus = tmp_path / "in.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return Job(
        name="j",
        model=ModelSpec(path=str(tmp_path)),
        task=GenerateTask(prompt="Say.\n{{ parts }}\nTopic:"),
        input=InputSpec(paths=(str(corpus),)),
        output=OutputSpec(path=str(tmp_path / "out")),
        parts=PARTS,
    )


def settled(job: Job) -> SettledJob:
    return settle_parts(job, lambda: find_sources(job.input))


def no_sources() -> Sources:
    raise AssertionError("the input is not looked at")


def rendered(job: Job) -> list[str]:
    return [RowTemplate(text, place=place).render(next(rows())) for place, text in job.task.templates()]


def written(job: Job, order: tuple[int, ...] | None) -> RunRecord:
    """A run of the job in its output folder, planned with the parts in this order."""
    found = settled(job)
    units = Shard(name="units.parquet", num_bytes=1, sha256="0")
    plan = Plan(schema=pa.schema([]), unit_rows=1, num_files=1, num_units=1, num_rows=1, num_bytes=1)
    record = RunRecord.of(found.job, {"unit_rows": 1}, plan, units, parts_order=order)
    out = Path(job.output.path)
    out.mkdir(exist_ok=True)
    (out / RUN).write_bytes(record.to_json())
    return record


def test_columns_with_few_values_come_first(job: Job) -> None:
    found = settled(job)
    assert found.parts is not None
    assert found.parts.order == WORST_TO_BEST
    shared = found.parts.shared
    assert shared is not None
    assert shared.num_rows == 300
    assert shared.given < 0.01
    assert shared.found > 0.35
    review = "Review: review 0 " + "x" * 40
    product, shop = next(rows())["product"], next(rows())["shop"].upper()
    assert rendered(found.job) == [f"Say.\nShop: {shop}\nProduct: {product}\n{review}\nTopic:"]
    assert found.job.parts == PARTS
    assert settled(found.job).job == found.job


def test_the_share_is_that_of_the_rendered_texts(job: Job) -> None:
    """Counted from the texts themselves, a line each; `upper` does not change a length."""
    found = settled(job)
    assert found.parts is not None
    assert found.parts.shared is not None
    for order, told in ((found.parts.order, found.parts.shared.found), ((0, 1, 2), found.parts.shared.given)):
        texts = [[RowTemplate(PARTS[part], place="p").render(row) for part in order] for row in rows()]
        beginnings = {tuple(parts[:end]): 1 + len(parts[end - 1]) for parts in texts for end in (1, 2, 3)}
        total = sum(1 + len(part) for parts in texts for part in parts)
        assert told == pytest.approx(1 - sum(beginnings.values()) / total)


def test_all_tasks_and_all_models_have_them(job: Job) -> None:
    tasks = SeveralTask(tasks={"a": EmbedTask(text="{{ parts }}"), "b": GenerateTask(prompt="{{ body }}|{{ parts }}")})
    cascade = (Escalation(below=0.5, model=job.model, engine=EngineSpec()),)
    several = settled(replace(job, task=tasks, cascade=cascade)).job
    first, second = rendered(several)
    assert second == f"{next(rows())['body']}|{first}"
    assert [rendered(step) for step in several.steps] == [[first, second]] * 2


def test_a_part_that_may_read_anything_comes_last(job: Job) -> None:
    whole = replace(job, parts=("{{ row | tojson }}", "{{ shop }}"))
    found = settled(whole).parts
    assert found is not None
    assert found.order == (1, 0)
    assert found.shared is not None
    total = sum(1 + sum(len(str(value)) for value in row.values()) for row in rows())
    assert found.shared.found == pytest.approx(1 - (total + 3 * 21) / (total + 300 * 21))


def test_columns_that_are_null_or_missing_are_a_value_too(job: Job, tmp_path: Path) -> None:
    lines = [{"a": number, "b": None, "c": 1} if number % 2 else {"a": number, "c": 1} for number in range(8)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = ("{{ a }}", "{{ b | default('-', true) }}", "{{ d | default('') }}")
    found = settled(replace(job, parts=parts)).parts
    assert found is not None
    assert found.order == (2, 1, 0)


def test_an_input_without_such_columns_leaves_the_given_order(job: Job) -> None:
    found = settled(replace(job, parts=("{{ x }}", "{{ y }}"))).parts
    assert found is not None
    assert found.order == (0, 1)
    assert found.shared is not None
    assert found.shared.num_rows == 0


def test_a_job_without_parts_is_as_it_is(job: Job) -> None:
    plain = replace(job, parts=())
    assert settle_parts(plain, no_sources) == SettledJob(job=plain, parts=None)
    assert "parts" not in fingerprint_of(plain, find_sources(job.input).files)
    values = json.loads(written(plain, None).to_json())
    assert not {"parts", "parts_order"} & {*values, *values["spec"]}


def test_a_run_that_goes_on_has_the_order_of_its_record(job: Job) -> None:
    record = written(job, (1, 0, 2))
    assert RunRecord.from_json(record.to_json()) == record
    found = settle_parts(job, no_sources)
    assert found.parts is not None
    assert (found.parts.order, found.parts.shared) == ((1, 0, 2), None)
    assert rendered(found.job)[0].startswith("Say.\nProduct: ")


def test_other_parts_than_those_of_the_record_are_sampled_and_told_apart(job: Job) -> None:
    written(job, (1, 0, 2))
    other = replace(job, parts=(PARTS[1], PARTS[0], PARTS[2]))
    found = settled(other)
    assert found.parts is not None
    assert found.parts.shared is not None
    files = find_sources(job.input).files
    before, after = (
        fingerprint_of(settled(each).job, files) for each in (replace(job, output=OutputSpec(path="/none")), other)
    )
    (line,) = differences(before, after)
    assert line.startswith('parts: ["Review: {{ body }}"')
    assert ' -> ["Product: ' in line


@pytest.mark.parametrize("order", [(), (0, 1), (0, 1, 1), (0, 1, 3), ("0", 1, 2), (0, True, 2)])
def test_an_order_that_is_none_is_damage(job: Job, order: Any) -> None:
    written(job, order)
    with pytest.raises(DamageError, match=r"run\.json is damaged: its parts_order is"):
        settle_parts(job, no_sources)


def test_nothing_is_sampled_for_a_run_that_goes_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    written(job, WORST_TO_BEST)
    monkeypatch.setattr(settle, "rows_at_places", no_sources)
    assert settled(job).parts is not None
