"""What is found wrong before anything starts."""

import datetime as dt
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from jobs.errors import SpecError
from jobs.spec.job import LoadedSpec, load_spec
from jobs.spec.placed_errors import placed_errors
from jobs.spec.preflight import Preflight, check_before_run
from pipelines.errors import PlanError
from pipelines.formats.schema import Columns
from pipelines.io.s3 import S3Store
from pipelines.opened import JobOpening
from pipelines.units.listing import find_sources
from pipelines.units.planning import plan_units

SpecWriter = Callable[[str], Path]
CheckpointMaker = Callable[..., Path]
Checker = Callable[..., Preflight]

pytestmark = pytest.mark.usefixtures("prepared_here")

SPEC = """\
name: j
model: {{path: {model}}}
task:
  {task}
input:
  paths: [{corpus}]
  {extra}
output: {{path: out}}
engine:
  {engine}
"""
CLASSIFY = "{kind: classify, text: '{{ body }}'}"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.parquet"
    pq.write_table(pa.table({"ticket_id": [1, 2], "body": ["a", "b"]}), path)
    return path


@pytest.fixture
def check(write_spec: SpecWriter, corpus: Path) -> Iterator[Checker]:
    """A function (model folder, task, ...) that writes a spec and checks it; problems name the spec `spec.yaml`."""

    found: list[Preflight] = []

    def run(model: Path | str, task: str, *, extra: str = "{}", engine: str = "{}", paths: Path = corpus) -> Preflight:
        text = SPEC.format(model=model, task=task, corpus=paths, extra=extra, engine=engine).replace("  {}\n", "")
        path = write_spec(text.replace("engine:\n", "") if engine == "{}" else text)
        try:
            found.append(check_before_run(load_spec(path)))
            return found[-1]
        except SpecError as error:
            raise SpecError([problem.replace(str(path), "spec.yaml") for problem in error.problems]) from error

    yield run
    for one in found:
        one.close()


def test_good_job_passes(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    found = check(tiny_checkpoint("sequence-classification"), CLASSIFY, extra="columns: [ticket_id]")
    assert found.facts.model.head == "sequence-classification"
    assert [source.relative_path for source in found.opened.sources.files] == ["tickets.parquet"]


def test_what_a_check_opens_is_what_a_run_would_open(
    write_spec: SpecWriter, corpus: Path, tiny_checkpoint: CheckpointMaker
) -> None:
    """A run that is given it opens nothing again."""
    task = "{kind: classify, text: '{{ body }}', labels: [good, bad news]}"
    text = SPEC.format(model=tiny_checkpoint("causal"), task=task, corpus=corpus, extra="", engine="{}")
    spec, today = load_spec(write_spec(text)), dt.date(2026, 2, 28)
    found = check_before_run(spec, today=today)
    found.close()
    with closing(JobOpening.of(spec.job, today)) as opening:
        assert found.opened == opening.finish()
    assert found.opened.dated_job == replace(spec.job, date=today)


def test_another_quantization_than_the_checkpoints_is_refused(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_checkpoint("sequence-classification"), tmp_path / "saved")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    said = r"model.quantization: quantization.method was 'nf4', but the checkpoint is quantized already, with 'int8'"
    with pytest.raises(SpecError, match=said):
        check(f"{folder}, quantization: nf4", CLASSIFY)


def test_parts_are_settled_alike_by_a_check_and_by_a_run(
    write_spec: SpecWriter, tmp_path: Path, tiny_checkpoint: CheckpointMaker
) -> None:
    corpus = tmp_path / "shops.parquet"
    pq.write_table(pa.table({"body": [f"text {row}" for row in range(8)], "shop": ["a", "b"] * 4}), corpus)
    task = "{kind: generate, prompt: '{{ parts }}'}"
    text = SPEC.format(model=tiny_checkpoint("causal"), task=task, corpus=corpus, extra="", engine="{}")
    spec = load_spec(write_spec(text + "parts: ['Text: {{ body }}', 'Shop: {{ shop }}']\n"))
    found = check_before_run(spec)
    found.close()
    assert found.opened.parts is not None
    assert found.opened.parts.order == (1, 0)
    assert found.opened.fitted.columns.required == {"body", "shop"}
    with closing(JobOpening.of(spec.job, None)) as opening:
        assert found.opened == opening.finish()


def test_a_column_that_a_part_misses_is_told_at_the_part(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    said = r"spec\.yaml:\d+: parts\[1\]: the input has no column 'boddy'; .* did you mean body\?"
    with pytest.raises(SpecError, match=said):
        check(
            tiny_checkpoint("sequence-classification"),
            "{kind: classify, text: '{{ parts }}'}\nparts: ['{{ ticket_id }}', '{{ boddy }}']",
        )


@pytest.mark.parametrize(
    ("family", "keys", "said"),
    [
        ("qwen3", "mamba_dt_clamp: none", "model.mamba_dt_clamp: was 'none'; Qwen3 has no options of its own: leave it out"),
        ("llama", "options: {depth: 2}", "model.options.depth: was 2; Llama has no options of its own: leave it out"),
        (
            "qwen3",
            "options: {mamba_dt_clamp: prefill}",
            "model.options.mamba_dt_clamp: was 'prefill'; Qwen3 has no options of its own: leave it out",
        ),
        (
            "zamba2",
            "options: {mamba_dt_clamps: none}",
            r"model.options.mamba_dt_clamps: was 'none'; Zamba2 has no such option; did you mean mamba_dt_clamp\? it has mamba_dt_clamp",
        ),
        (
            "zamba2",
            "options: {mamba_dt_clamp: exact}",
            "model.options.mamba_dt_clamp: was 'exact'; it must be one of none, prefill, both",
        ),
        ("zamba2", "options: {mamba_dt_clamp: [none]}", r"model.options.mamba_dt_clamp: was \['none'\]; it must be one of"),
    ],
)  # fmt: skip
def test_an_option_that_the_family_of_the_checkpoint_does_not_have_is_refused(
    check: Checker, tiny_checkpoint: CheckpointMaker, family: str, keys: str, said: str
) -> None:
    folder = tiny_checkpoint("sequence-classification", family=family)
    with pytest.raises(SpecError, match=said):
        check(f"{folder}, {keys}", CLASSIFY)


@pytest.mark.parametrize("keys", ["options: {mamba_dt_clamp: both}", "mamba_dt_clamp: both", "mamba_dt_clamp: prefill"])
def test_an_option_of_its_family_is_taken_in_both_spellings(
    check: Checker, tiny_checkpoint: CheckpointMaker, keys: str
) -> None:
    found = check(f"{tiny_checkpoint('sequence-classification', family='zamba2')}, {keys}", CLASSIFY)
    assert found.opened.job.model.options == ({} if "prefill" in keys else {"mamba_dt_clamp": "both"})


def test_missing_model_folder_is_named(check: Checker, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"spec.yaml:2: model.path: there is no folder .*nowhere.*current directory"):
        check(tmp_path / "nowhere", CLASSIFY)


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "safetensors"),
        ("tokenizer.json", "tokenizer.json"),
    ],
)
def test_model_folder_without_a_file_is_refused(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path, missing: str, problem: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_checkpoint("sequence-classification").iterdir():
        if file.name != missing:
            (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(SpecError, match=rf"^spec.yaml:2: model.path: .*{problem}"):
        check(folder, CLASSIFY)


def test_head_that_does_not_fit_the_task_is_refused(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    with pytest.raises(SpecError, match=r"^spec.yaml:4: task.*"):
        check(tiny_checkpoint("token-classification"), CLASSIFY)


def test_max_tokens_over_the_context_is_refused_on_its_line(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    task = "kind: generate\n  prompt: '{{ body }}'\n  sampling:\n    max_tokens: 128"
    with pytest.raises(SpecError, match=r"^spec.yaml:7: task.sampling.max_tokens: was 128; .*128"):
        check(tiny_checkpoint(), task)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (
            "allowed_token_ids: [5, 512]",
            "allowed_token_ids: holds token ids from 5 to 512; the vocabulary has 0 to 511",
        ),
        ("logit_bias: {'512': 1}", "logit_bias: holds token ids from 512 to 512; the vocabulary has 0 to 511"),
        ("stop_token_ids: [512]", "stop_token_ids: holds token ids from 512 to 512; the vocabulary has 0 to 511"),
        (
            "bad_words: ['" + "', '".join(f"{number}{chr(233) * 250}" for number in range(60)) + "']",
            "bad_words: comes to",
        ),
    ],
)
def test_tokens_that_the_checkpoint_lacks_are_refused_on_their_line(
    check: Checker, tiny_checkpoint: CheckpointMaker, key: str, problem: str
) -> None:
    task = f"kind: generate\n  prompt: '{{{{ body }}}}'\n  sampling:\n    {key}"
    with pytest.raises(SpecError) as raised:
        check(tiny_checkpoint(), task)
    assert str(raised.value).startswith(f"spec.yaml:7: task.sampling.{problem}")


def test_max_model_len_over_the_checkpoints_is_refused(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    with pytest.raises(SpecError, match=r"^spec.yaml:9: engine.max_model_len: was 129; it must be at most 128"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, engine="max_model_len: 129")


def test_missing_column_of_a_template_is_named_with_those_there_are(
    check: Checker, tiny_checkpoint: CheckpointMaker
) -> None:
    with pytest.raises(
        SpecError,
        match=r"^spec.yaml:4: task.text: the input has no column 'boddy'; .* has ticket_id, body; did you mean body\?$",
    ):
        check(tiny_checkpoint("sequence-classification"), "{kind: classify, text: '{{ boddy }}'}")


@pytest.mark.parametrize("name", ["ticket.body", "ticket body", "ticket-id"])
def test_a_column_whose_name_is_no_word_is_named_through_row(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [1], name: ["The parcel is late"]}), path)
    model = tiny_checkpoint("sequence-classification")
    written = f'{{{{ row["{name}"] }}}}'
    assert check(model, f"{{kind: classify, text: '{written}'}}", paths=path).opened.sources.files
    with pytest.raises(SpecError) as caught:
        check(model, f"{{kind: classify, text: '{{{{ {name} }}}}'}}", paths=path)
    assert caught.value.problems[0].startswith("spec.yaml:4: task.text: ")
    assert f'a column named "{name}" is written {written}' in caught.value.problems[0]


def test_a_column_with_spaces_of_a_csv_is_named_through_row(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("Ticket ID,Ticket Text\n1,The parcel is late\n")
    model = tiny_checkpoint("sequence-classification")
    assert check(model, "{kind: classify, text: '{{ row[\"Ticket Text\"] }}'}", paths=path).opened.sources.files
    with pytest.raises(
        SpecError, match=r"task.text: the input has no column 'Ticket Txt'; .*did you mean Ticket Text\?"
    ):
        check(model, "{kind: classify, text: '{{ row[\"Ticket Txt\"] }}'}", paths=path)


def test_column_with_a_default_may_be_missing(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    task = "{kind: classify, text: \"{{ body }} {{ x | default('') }}\"}"
    assert check(tiny_checkpoint("sequence-classification"), task).opened.sources.files


def test_missing_carried_column_is_named(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    with pytest.raises(SpecError, match=r"^spec.yaml:7: input.columns\[1\]: the input has no column 'id'"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, extra="columns: [ticket_id, id]")


def test_a_missing_truth_is_named(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    """Written behind `engine`, the last key of the spec that there is."""
    with pytest.raises(SpecError, match=r"report.truth: the input has no column 'boddy'; .*did you mean body\?"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, engine="replicas: 1\nreport: {truth: boddy}")


def test_unknown_arrow_type_is_refused(check: Checker, tiny_checkpoint: CheckpointMaker) -> None:
    with pytest.raises(SpecError, match=r"^spec.yaml:7: input.schema: .*'text'"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, extra="schema: {body: text}")


def test_columns_of_csv_are_those_of_its_header(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,text\n1,a\n")
    with pytest.raises(SpecError, match=r"task.text: the input has no column 'body'; .*t.csv has id, text"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, paths=path)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("gs://bucket/x", r"'gs://bucket/x' is a gs:// URL; results can be written to a folder .* and to s3://"),
        ("foo://x", "'foo://x' is a foo:// URL"),
        (
            "s3://u:p@bucket/x",
            "the path of the output holds a user name, a password or a signature; give them in output.storage_options",
        ),
        ("s3://", "ParamValidationError"),
        ("{here}/file", "Not a directory"),
    ],
)
def test_what_is_wrong_with_the_output_is_told_of_its_path(
    write_spec: SpecWriter, tiny_checkpoint: CheckpointMaker, corpus: Path, tmp_path: Path, output: str, said: str
) -> None:
    (tmp_path / "file").write_text("")
    text = SPEC.format(
        model=tiny_checkpoint("sequence-classification"),
        task=CLASSIFY,
        corpus=corpus,
        extra="format: parquet",
        engine="",
    )
    path = write_spec(text.replace("path: out", f"path: '{output.format(here=tmp_path)}'").replace("engine:\n  \n", ""))
    with pytest.raises(SpecError, match=rf"spec.yaml:8: output.path: .*{said}"):
        check_before_run(load_spec(path))


def _no_bucket() -> FileNotFoundError:
    """What s3fs makes of S3's answer."""
    error = FileNotFoundError("The bucket does not exist")
    error.__cause__ = ClientError({"Error": {"Code": "NoSuchBucket"}}, "GetObject")
    return error


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (ImportError("Install s3fs"), r"Install s3fs \(pip install s3fs\)"),
        (PermissionError("Access Denied"), "Access Denied; .*check the URL, and output.storage_options"),
        (_no_bucket(), "does not exist; check the URL, and output.storage_options"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_told_of_the_outputs_path(
    check: Checker, tiny_checkpoint: CheckpointMaker, monkeypatch: pytest.MonkeyPatch, cause: Exception, said: str
) -> None:
    class Files:
        def __getattr__(self, name: str) -> None:
            raise cause

    monkeypatch.setattr(S3Store, "_files", lambda _self: Files())
    monkeypatch.setitem(globals(), "SPEC", SPEC.replace("path: out", "path: 's3://bucket/out'"))
    with pytest.raises(SpecError, match=rf"spec.yaml:8: output.path: cannot read s3://bucket/out/run.json: .*{said}"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, extra="format: parquet")


def test_a_store_that_does_not_answer_now_is_left_to_the_run(
    check: Checker, tiny_checkpoint: CheckpointMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Files:
        def __getattr__(self, name: str) -> None:
            raise TimeoutError("no answer")

    monkeypatch.setattr(S3Store, "_files", lambda _self: Files())
    monkeypatch.setitem(globals(), "SPEC", SPEC.replace("path: out", "path: 's3://bucket/out'"))
    assert check(tiny_checkpoint("sequence-classification"), CLASSIFY, extra="format: parquet").opened.sources.files
    assert "output.path: cannot read s3://bucket/out/run.json" in caplog.text


def test_input_that_matches_nothing_is_refused(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"^spec.yaml:6: input.paths\[0\]: input path .*matches no"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, paths=tmp_path / "*.jsonl")


def test_file_that_is_no_parquet_is_refused(check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_text("no parquet")
    with pytest.raises(SpecError, match=r"^spec.yaml:6: input.paths\[0\]: cannot read .*t.parquet"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, paths=path)


def test_carried_column_with_the_name_of_a_result_is_refused_without_a_prefix(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('no json\n{"body": "a", "label": "x"}\n')
    model = tiny_checkpoint("sequence-classification")
    with pytest.raises(
        SpecError, match=r"^spec.yaml:8: output: the input's column label has the name of a result column"
    ):
        check(model, CLASSIFY, extra="schema: {body: string}", paths=path)
    assert check(model, CLASSIFY, extra="columns: [body]", paths=path).opened.sources.files


def test_an_output_within_the_input_is_refused_at_its_key(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.jsonl").write_text('{"body": "a"}\n')
    with pytest.raises(SpecError, match=r"^spec.yaml:8: output.path: output.path .*out lies within the input"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, extra="format: jsonl", paths=tmp_path)


def test_a_template_may_name_a_column_of_folders(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    folder = tmp_path / "in" / "day=1"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"body": ["a"]}), folder / "t.parquet")
    (folder / "notes.txt").touch()
    task = "{kind: classify, text: '{{ body }} {{ day }}'}"
    found = check(tiny_checkpoint("sequence-classification"), task, extra="columns: [day]", paths=tmp_path / "in")
    passed_over = found.opened.sources.passed_over
    assert (passed_over.num_files, passed_over.examples) == (1, ("day=1/notes.txt",))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.csv", b"a,b\r1,2\r", "carriage returns alone"),
        ("t.parquet", b"", r"t.parquet: it is empty \(0 bytes\)"),
        ("t.jsonl.gz", b'{"body": "a"}\n', "t.jsonl.gz: it is no gzip"),
        ("t.jsonl", b"\x1f\x8b\x08", r"t.jsonl is gzip, .* rename it to t.jsonl.gz"),
    ],
)
def test_a_file_that_is_something_else_is_told_at_its_path(
    check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=rf"^spec.yaml:6: input.paths.*: .*{told}"):
        check(tiny_checkpoint("sequence-classification"), CLASSIFY, paths=tmp_path / name)


def test_an_empty_first_part_hides_no_columns(check: Checker, tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "part-0.csv").touch()
    (tmp_path / "in" / "part-1.csv").write_text("body\na\n")
    assert check(tiny_checkpoint("sequence-classification"), CLASSIFY, paths=tmp_path / "in").opened.sources.files


def planned(spec: LoadedSpec) -> None:
    """Plans a spec's input; what is wrong with it comes out at its key."""
    job = spec.job
    columns = Columns(required=frozenset(), carried=job.input.columns)
    with placed_errors(spec):
        plan_units(find_sources(job.input).files, job.input, columns, unit_rows=8, sink=lambda units: None)


def test_a_column_with_a_comma_in_its_name_that_planning_misses_is_told_at_its_key(
    write_spec: SpecWriter, tmp_path: Path
) -> None:
    """The text of the error names two: the one that is there is not the one that is missing."""
    (tmp_path / "t.jsonl").write_text('{"a": "x"}\n')
    extra = "columns: [a, 'a, b; c']"
    text = SPEC.format(model="m", task=CLASSIFY, corpus=tmp_path / "t.jsonl", extra=extra, engine="{}")
    with pytest.raises(SpecError, match=r"spec.yaml:7: input.columns\[1\]: the input has no column a, b; c"):
        planned(load_spec(write_spec(text)))


@pytest.mark.parametrize(
    ("second", "content", "told"),
    [
        ("in2/t.jsonl", b"\x1f\x8b\x08", "t.jsonl is gzip"),
        ("in2", b"\x1f\x8b\x08", "t.jsonl is gzip"),
        ("in2/*.jsonl", b'{"a": 1}\r{"a": 2}\r', "carriage returns alone"),
    ],
)
def test_what_planning_finds_in_a_file_is_told_at_the_path_that_leads_to_it(
    write_spec: SpecWriter, tmp_path: Path, second: str, content: bytes, told: str
) -> None:
    """The path of another entry stands in the text as well: it is the beginning of this file's."""
    for folder, lines in (("in", b'{"a": "x"}\n'), ("in2", content)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.jsonl").write_bytes(lines)
    paths = f"{tmp_path / 'in'}, '{tmp_path / second}'"
    text = SPEC.format(model="m", task=CLASSIFY, corpus=paths, extra="columns: [a]", engine="{}")
    with pytest.raises(SpecError, match=rf"spec.yaml:6: input.paths\[1\]: .*{told}"):
        planned(load_spec(write_spec(text)))


def test_a_pattern_that_matches_nothing_is_told_of_its_own_entry(write_spec: SpecWriter, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t.jsonl").touch()
    paths = f"{tmp_path}/in, {tmp_path}/in/*.csv"
    text = SPEC.format(model="m", task=CLASSIFY, corpus=paths, extra="", engine="{}")
    with pytest.raises(SpecError, match=r"spec.yaml:6: input.paths\[1\]: input path .*csv' matches no"):
        planned(load_spec(write_spec(text)))


def test_a_plan_error_keeps_its_places_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PlanError("text", place="output.path", path="a", missing_columns=["b"])))
    assert (str(error), error.place, error.path, error.missing_columns) == ("text", "output.path", "a", ("b",))
