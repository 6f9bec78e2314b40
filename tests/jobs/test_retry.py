"""`millrace retry`, as a person starts it: rows that were too long, with a larger model length,
and with another prompt."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import yaml
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.spec.job import load_spec
from pipelines.io.open_output import open_store
from pipelines.io.outputs import Store
from pipelines.job import OutputSpec
from tests.helpers.pipelines.running import drive, rows_in

NUM_ROWS = 20
LONG, NO_JSON = (3, 9, 17), (5, 12)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def corpus() -> bytes:
    lines = []
    for row in range(NUM_ROWS):
        body = "please help " * (9 if row in LONG else 1)
        lines.append(f"no json {row}" if row in NO_JSON else json.dumps({"id": row, "body": body}))
    return "".join(f"{line}\n" for line in lines).encode()


def spec_of(model: Path, source: str, out: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "retried",
        "model": {"path": str(model), "dtype": "float32"},
        "task": {"kind": "generate", "prompt": "{{ body }}", "sampling": {"max_tokens": 4}},
        "input": {"paths": [source]},
        "output": {"path": out, "format": "jsonl"},
        "engine": {"max_model_len": 48, "max_num_seqs": 8, "num_cpus": 1},
        "unit_rows": 6,
        **changes,
    }


def written(folder: Path, name: str, spec: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def letters_in(out: Path) -> dict[int, tuple[str, int]]:
    return {letter["row"]: (letter["kind"], letter["attempts"]) for letter in rows_in(out, "errors")}


def test_rows_that_were_too_long_have_results_with_a_larger_length(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model, source, out = tiny_checkpoint(max_position_embeddings=512), tmp_path / "rows.jsonl", tmp_path / "out"
    source.write_bytes(corpus())
    spec = written(tmp_path, "spec", spec_of(model, str(source), str(out)))
    assert invoke("run", spec).exit_code == 0
    before = {row["id"]: row for row in rows_in(out)}
    assert letters_in(out) == dict.fromkeys(LONG, ("too_long", 0)) | dict.fromkeys(NO_JSON, ("malformed_json", 0))

    refused = invoke("retry", out, "--set", "task.sampling.temperature=1")
    assert refused.exit_code == 2
    assert "--set task.sampling.temperature: task.sampling.temperature: was 0.0 and is 1.0" in refused.stderr
    assert "--allow-changed" in refused.stderr
    none = invoke("retry", out, "--kind", "no_such_kind")
    assert (none.exit_code, none.stderr.splitlines()[-2]) == (
        0,
        "millrace: no dead letter is one that was asked for; 5 dead letters are left",
    )

    done = invoke("retry", out, "--kind", "too_long", "--set", "engine.max_model_len=256")
    assert done.exit_code == 0, done.stderr
    assert "millrace: 3 of 3 dead letters tried again, 3 have results now; 2 dead letters are left" in done.stderr
    assert letters_in(out) == dict.fromkeys(NO_JSON, ("malformed_json", 0))
    fresh = written(
        tmp_path,
        "fresh",
        spec_of(model, str(source), str(tmp_path / "fresh"), engine={"max_model_len": 256, "num_cpus": 1}),
    )
    assert drive(load_spec(fresh).job).exit_status == 0
    assert rows_in(out) == rows_in(tmp_path / "fresh")
    assert {row["id"]: row for row in rows_in(out) if row["id"] in before} == before

    assert invoke("check", out).exit_code == 0
    again = invoke("run", spec)
    assert (again.exit_code, again.stderr.splitlines()[-2]) == (
        0,
        "millrace: 20 of 20 rows committed, 2 of them as dead letters",
    )
    report = json.loads((out / "report.json").read_bytes())
    assert (report["rows_written"], report["rows_failed"], report["units_done"]) == (18, 2, 4)
    assert report["generations"] == [{"generation": 1, "rows": 3, "changes": ["max_model_len: 48 -> 256"]}]
    assert "max_model_len: 48 -&gt; 256" in (out / "report.html").read_text()
    record = json.loads((out / "run.json").read_bytes())
    assert record["spec"]["engine"]["max_model_len"] == 48
    assert [each["spec"]["engine"]["max_model_len"] for each in record["generations"]] == [256]
    receipts = [json.loads(path.read_bytes()) for path in sorted((out / "receipts").iterdir())]
    rows = [row for receipt in receipts for each in receipt.get("generations", []) for row in each["rows"]]
    assert tuple(rows) == LONG

    source.write_bytes(corpus() + b"\n")
    changed = invoke("retry", out)
    assert changed.exit_code == 2
    assert "holds a run of something else" in changed.stderr


def test_rows_in_a_bucket_are_tried_again_with_another_prompt_where_that_is_allowed(
    tiny_checkpoint: Callable[..., Path], s3_options: dict[str, Any], tmp_path: Path
) -> None:
    """With the storage options of a spec, and in Parquet; the two kinds of rows are told apart by
    their receipts."""
    model, place = tiny_checkpoint(max_position_embeddings=512), f"s3://bucket/retried/{tmp_path.name}"
    s3fs.S3FileSystem(**s3_options).pipe_file(f"{place.removeprefix('s3://')}/rows.jsonl", corpus())
    reached = {"storage_options": s3_options}
    whole = spec_of(
        model, "", "", input={"paths": [f"{place}/rows.jsonl"], **reached}, output={"path": f"{place}/out", **reached}
    )
    spec = written(tmp_path, "spec", whole)
    assert invoke("run", spec).exit_code == 0
    store = open_store(OutputSpec(path=f"{place}/out", storage_options=s3_options))
    before = rows_of(store)
    sets = ["--set", 'task.prompt="{{ body[:24] }}"']
    refused = invoke("retry", f"{place}/out", "--spec", spec, *sets)
    assert refused.exit_code == 2
    assert "--allow-changed" in refused.stderr
    done = invoke(
        "retry", f"{place}/out", "--spec", spec, *sets, "--allow-changed", "--where", "'please' in input.body"
    )
    assert done.exit_code == 0, done.stderr
    assert "3 of 3 dead letters tried again, 3 have results now" in done.stderr
    after = rows_of(store)
    assert {row: after[row] for row in before} == before
    assert sorted(after.keys() - before.keys()) == [*LONG]
    oracle = AutoTokenizer.from_pretrained(model)
    assert {after[row]["prompt_tokens"] for row in LONG} == {len(oracle(("please help " * 2)[:24])["input_ids"])}
    record = json.loads(store.read("run.json") or b"")
    assert [each["spec"]["task"]["prompt"] for each in record["generations"]] == ["{{ body[:24] }}"]
    assert s3_options["client_kwargs"]["endpoint_url"] not in (store.read("run.json") or b"").decode()
    assert invoke("check", f"{place}/out", "--spec", spec).exit_code == 0


def rows_of(store: Store) -> dict[int, dict[str, Any]]:
    tables = [pq.read_table(pa.BufferReader(store.read(f"data/{name}") or b"")) for name, _ in store.sizes("data")]
    return {row["id"]: row for table in tables for row in table.to_pylist()}
