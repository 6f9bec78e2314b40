"""`millrace run` with a checkpoint in an object store, as a person starts it."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import s3fs
import yaml

from tests.pipelines.killing import Run
from tests.pipelines.running import contents, rows_in, short_folder, write_corpus

TEMPLATES = Path(__file__).parents[1] / "models/chat_templates"
NUM_ROWS = 40


def test_a_checkpoint_in_s3_gives_what_the_folder_gives(
    tiny_checkpoint: Callable[..., Path], s3_options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shutil.copytree(tiny_checkpoint(max_position_embeddings=512), tmp_path / "model")
    shutil.copy(TEMPLATES / "smollm3.jinja", model / "chat_template.jinja")
    system, name = s3fs.S3FileSystem(**s3_options), f"bucket/models/{tmp_path.name}"
    for file in model.iterdir():
        system.pipe_file(f"{name}/{file.name}", file.read_bytes())
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    spec = {
        "name": "remote",
        "task": {
            "kind": "generate",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "{{ body }}"}]}],
            "sampling": {"max_tokens": 4},
        },
        "input": {"paths": [str(write_corpus(tmp_path / "rows.jsonl", NUM_ROWS))]},
        "engine": {"max_num_seqs": 16},
        "unit_rows": 8,
    }
    places = {
        "remote": {"path": f"s3://{name}", "dtype": "float32", "storage_options": s3_options},
        "local": {"path": str(model), "dtype": "float32"},
    }
    today = dt.datetime.now(dt.UTC).date().isoformat()
    with short_folder() as temp:
        for where, place in places.items():
            out = tmp_path / where
            path = tmp_path / f"{where}.yaml"
            date = (
                {} if where == "remote" else {"date": json.loads((tmp_path / "remote/run.json").read_bytes())["date"]}
            )
            whole = {**spec, **date, "model": place, "output": {"path": str(out), "format": "jsonl"}}
            path.write_text(yaml.safe_dump(whole))
            with Run(path, out, temp) as run:
                assert run.wait() == 0, run.output
    assert len(rows_in(tmp_path / "remote")) == NUM_ROWS
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")
    record = (tmp_path / "remote/run.json").read_text()
    assert json.loads(record)["date"] >= today
    assert json.loads(record)["spec"]["model"] == {"path": f"s3://{name}", "dtype": "float32", "quantization": None}
    assert s3_options["client_kwargs"]["endpoint_url"] not in record
    assert "version" in json.loads(record)["fingerprint"]["model"]["model.safetensors"]
    assert len(list((tmp_path / "home/.cache/millrace/checkpoints").rglob("model.safetensors"))) == 1
