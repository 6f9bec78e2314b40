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

from jobs.spec.job import load_spec
from tests.helpers.pipelines.killing import Run
from tests.helpers.pipelines.running import contents, drive, rows_in, short_folder, write_corpus

TEMPLATES = Path(__file__).parents[1] / "models/chat_templates"
NUM_ROWS = 40

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


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
    today = dt.datetime.now(dt.UTC).date().isoformat()

    def spec_of(where: str, model: dict[str, Any], **more: Any) -> Path:
        path = tmp_path / f"{where}.yaml"
        output = {"path": str(tmp_path / where), "format": "jsonl"}
        path.write_text(yaml.safe_dump({**spec, "model": {**model, "dtype": "float32"}, "output": output, **more}))
        return path

    remote = spec_of("remote", {"path": f"s3://{name}", "storage_options": s3_options})
    with short_folder() as temp, Run(remote, tmp_path / "remote", temp) as run:
        assert run.wait() == 0, run.output
    date = json.loads((tmp_path / "remote/run.json").read_bytes())["date"]
    assert drive(load_spec(spec_of("local", {"path": str(model)}, date=date)).job).exit_status == 0
    assert len(rows_in(tmp_path / "remote")) == NUM_ROWS
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")
    record = (tmp_path / "remote/run.json").read_text()
    assert json.loads(record)["date"] >= today
    assert json.loads(record)["spec"]["model"] == {
        "path": f"s3://{name}",
        "dtype": "float32",
        "quantization": None,
        "options": {},
    }
    assert s3_options["client_kwargs"]["endpoint_url"] not in record
    assert "version" in json.loads(record)["fingerprint"]["model"]["model.safetensors"]
    assert len(list((tmp_path / "home/.cache/millrace/checkpoints").rglob("model.safetensors"))) == 1
