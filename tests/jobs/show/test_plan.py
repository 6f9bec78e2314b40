"""What `millrace plan` prints."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from jobs.show.plan import plan_text
from models import SamplingParams
from models.tasks.labels import outcome_text
from pipelines.cost import Cost
from pipelines.estimate import Estimate, Memory
from pipelines.formats.schema import json_field
from pipelines.job import EngineSpec, InputSpec, Job, ModelSpec, OutputSpec
from pipelines.parts.settle import PartsOrder, SharedText
from pipelines.probe import Probe, ProbedBatch
from pipelines.sample import Sample
from pipelines.task_base.requests import ModelRequest
from pipelines.tasks.batch import BatchTask
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.units.listing import PassedOver
from pipelines.units.planning import Plan

CALL = ModelRequest(row=0, token_ids=np.empty(0, np.int32))
JOB = Job(
    name="label-tickets",
    model=ModelSpec(path="m"),
    task=GenerateTask(prompt="x", sampling=SamplingParams(max_tokens=8)),
    input=InputSpec(paths=("i",)),
    output=OutputSpec(path="o"),
    engine=EngineSpec(replicas=2),
)
BATCH = ProbedBatch(num_rows=64, seconds=4.0, prompt_tokens=6000, lengths=(31,) * 48 + (32,) * 16)
ESTIMATE = Estimate(
    plan=Plan(schema=pa.schema([]), unit_rows=4096, num_files=3, num_units=10, num_rows=25_000, num_bytes=12_345_678),
    sample=Sample(prompt_tokens=np.array([10, 12, 12, 15]), failures={"too_long": 1, "null_value": 3}, rows=[[]] * 4),
    memory=Memory(weights_bytes=8_000_000_000, typical_cache_bytes=1_500_000_000, full_cache_bytes=90_000_000_000),
    probe=Probe(batches=(BATCH,), load_s=75.0),
    cost=Cost(
        prompt_tokens=2_500_000,
        cached_tokens=500_000,
        completion_tokens=800_000,
        start_s=100.0,
        compute_s=7200.0,
        other_compute_s=7300.0,
        tokens_at_risk=54_321,
    ),
)


def test_a_one_pass_task_says_what_it_may_keep() -> None:
    job = replace(JOB, task=ClassifyTask(text="x"))
    assert "cache    90 GB at most, for what prompts begin with in common" in plan_text(job, ESTIMATE)
    nothing = replace(ESTIMATE, memory=replace(ESTIMATE.memory, full_cache_bytes=0))
    assert "in common" not in plan_text(job, nothing)


def test_everything_estimated_is_on_the_page() -> None:
    text = plan_text(JOB, ESTIMATE)
    for part in (
        "label-tickets: the spec is valid",
        "files  3",
        "rows   25,000",
        "units  10 of at most 4,096 rows",
        "bytes  12.3 MB",
        "8 rows sampled",
        "median 12   95% 12   longest 15",
        "3 of the sampled rows would fail: null_value\n  1 of the sampled rows would fail: too_long",
        "weights  8 GB",
        "1.5 GB for 256 sequences of the sampled length",
        "prompt tokens      2,500,000, of which 500,000 (20%) are shared with other rows and not computed",
        "16.0 rows/s, 2,000 tokens/s (64 rows at once)",
        "31.2 tokens a row",
        "2 h 01 min with one engine like the one probed",
        "1 min 40 s of it to start and end, loading included (1 min 15 s)",
        "1 h 01 min with 2 engines",
        "at most about 54,321 tokens would be computed again",
    ):
        assert part in text


def test_what_the_probe_found_in_the_cache_is_told_beside_what_it_computed() -> None:
    probe = Probe(batches=(replace(BATCH, cached_tokens=4800),), load_s=75.0)
    assert "16.0 rows/s, 800 tokens/s + 1,200 cached (64 rows at once)" in plan_text(
        JOB, replace(ESTIMATE, probe=probe)
    )


def test_two_speeds_that_differ_are_told_apart() -> None:
    assert ESTIMATE.cost is not None
    assert "no faster" not in plan_text(JOB, ESTIMATE)
    cost = replace(ESTIMATE.cost, other_compute_s=10_700.0)
    assert "3 h 00 min if more rows at once make it no faster than 64 did" in plan_text(
        JOB, replace(ESTIMATE, cost=cost)
    )


def test_files_passed_over_for_their_endings_are_counted() -> None:
    beside = PassedOver(num_files=12, examples=("a.txt", "b.md"))
    text = plan_text(JOB, replace(ESTIMATE, plan=replace(ESTIMATE.plan, passed_over=beside)))
    assert "files        3\n  passed over  12 files passed over for their endings (a.txt, b.md, ...)\n" in text
    assert "passed over" not in plan_text(JOB, ESTIMATE)


def test_parts_are_shown_in_their_order_with_what_it_saves() -> None:
    job = replace(JOB, parts=("Text: {{ body }}", "Shop:\n{{ shop }}"))
    found = PartsOrder(order=(1, 0), shared=SharedText(num_rows=1512, found=0.614, given=0.017))
    shown = "  'Shop:\\n{{ shop }}'\n  'Text: {{ body }}'\n"
    saved = "  61% of their text in 1,512 sampled rows is in beginnings that other rows have too; as given 2%\n"
    assert f"\nparts, in the order that shares most\n{shown}{saved}\n" in plan_text(job, ESTIMATE, parts=found)
    of_run = plan_text(job, ESTIMATE, parts=replace(found, shared=None))
    assert f"\nparts, in the order of the run that the output holds\n{shown}\n" in of_run
    assert "parts" not in plan_text(job, ESTIMATE)


def test_what_the_model_reads_for_the_first_row_is_shown_whole() -> None:
    prompt = "<|im_start|>user\n" + "word " * 300 + "\n\nLabel:"
    text = plan_text(JOB, replace(ESTIMATE, sample=replace(ESTIMATE.sample, prompt=prompt)))
    shown = "".join(f"  | {line}\n" for line in prompt.split("\n"))
    assert f"what the model reads for the first row\n{shown}\n" in text
    assert "what the model reads" not in plan_text(JOB, ESTIMATE)


def test_histogram_counts_every_sampled_row_once() -> None:
    text = plan_text(JOB, ESTIMATE)
    bars = [line.split() for line in text.splitlines() if "█" in line or line.strip().startswith(("11", "13", "14"))]
    assert [(bar[0], bar[-1]) for bar in bars] == [
        ("10", "1"), ("11", "0"), ("12", "2"), ("13", "0"), ("14", "0"), ("15", "1"),
    ]  # fmt: skip


def test_columns_that_parquet_holds_as_json_text_are_named_with_the_way_out() -> None:
    schema = pa.schema([pa.field("id", pa.int64()), json_field("order", "integers beside texts")])
    estimate = replace(ESTIMATE, plan=replace(ESTIMATE.plan, schema=schema))
    text = plan_text(JOB, estimate)
    assert "JSON text, where this key gives them no other type\n  input.schema.order  integers beside texts\n" in text
    for job in (
        replace(JOB, output=replace(JOB.output, format="jsonl")),
        replace(JOB, input=replace(JOB.input, columns=("id",))),
    ):
        assert "JSON text" not in plan_text(job, estimate)


def test_single_pass_task_has_no_cache_of_sequences_and_no_completion() -> None:
    text = plan_text(replace(JOB, task=ClassifyTask(text="x")), ESTIMATE)
    assert "sequences" not in text
    assert "completion" not in text


def test_sample_without_a_good_row_gives_no_time() -> None:
    empty = Sample(prompt_tokens=np.array([], np.int64), failures={"null_value": 2}, rows=[])
    text = plan_text(JOB, replace(ESTIMATE, sample=empty, probe=None, cost=None))
    assert "No sampled row can be computed" in text
    assert "2 of the sampled rows would fail: null_value" in text


def test_what_the_scores_of_a_checkpoints_classes_mean_is_said() -> None:
    job = replace(JOB, task=ClassifyTask(text="x"))
    assert "classes: 2 classes, one of them a row (softmax)" in plan_text(
        job, ESTIMATE, classes=outcome_text("single_label", ("a", "b"))
    )
    assert "classes" not in plan_text(job, ESTIMATE)


def test_what_to_expect_of_few_bits_is_said() -> None:
    assert "\n\nwarning: 4 bits are few\n\n" in plan_text(JOB, ESTIMATE, caution="4 bits are few")
    assert "warning" not in plan_text(JOB, ESTIMATE)


def test_a_batch_says_in_words_that_it_cannot_be_estimated() -> None:
    """Whatever was sampled: lines have no tokens before the API has read them."""
    sample = Sample(prompt_tokens=np.zeros(3, np.int64), failures={"invalid_value": 2}, rows=[[CALL]] * 3)
    text = plan_text(replace(JOB, task=BatchTask()), replace(ESTIMATE, sample=sample, probe=None, cost=None))
    assert (
        "requests, 5 lines sampled\n  3 of them can be asked\n  2 of the sampled rows would fail: invalid_value" in text
    )
    assert "so there is no estimate of tokens, caches or time" in text
    assert "prompt tokens" not in text
