"""Secrets of a spec - storage options, passwords, signed URLs - are in no message, no file of a run, and no list of a cluster."""

import http.server
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.logs import PACKAGES
from jobs.spec.document.secrets import secret_keys
from jobs.spec.job import load_spec
from jobs.submission import Submission
from pipelines.errors import PlanError
from pipelines.io.inputs import Storage, with_retries
from pipelines.io.open_output import open_store
from pipelines.job import InputSpec, OutputSpec
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.tasks.classify import ClassifyTask
from pipelines.units.listing import find_sources
from tests.helpers.pipelines.fake_engines import fake_engine
from tests.helpers.pipelines.running import drive, job_of, rows_in, write_corpus

CheckpointMaker = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("prepared_here")

HUSH = "hushhushhush"


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be listed is tried again at once."""
    monkeypatch.setattr("pipelines.units.matching.with_retries", partial(with_retries, first_wait_s=0.0))


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def spec(tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> Path:
    values = {
        "name": "j",
        "model": {"path": str(tiny_checkpoint("sequence-classification"))},
        "task": {"kind": "classify", "text": "{{ body }}"},
        "input": {"paths": [str(write_corpus(tmp_path / "rows.jsonl", 8))]},
        "output": {"path": str(tmp_path / "out")},
    }
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (f"output.storage_options={HUSH}", "--set output.storage_options: output.storage_options: was a value that is not shown"),
        (f"output.storage_options.secret=[{HUSH}", "--set output.storage_options.secret: this is no YAML"),
        (f"output.storage_options.secret=!!int {HUSH}", "output.storage_options.secret: holds what is no value (not shown)"),
        (f"output.storage_option.secret={HUSH}", "output.storage_option: unknown key"),
        (f"output.path=s3://user:{HUSH}@bucket/out", "holds a user name, a password or a signature"),
        (f"output.path=s3://bucket/out?X-Amz-Signature={HUSH}", "holds a user name, a password or a signature"),
        (f"output.path=s3:/user:{HUSH}@bucket", "--set output.path: output.path: "),
        (f"input.paths.0=https://user:{HUSH}@127.0.0.1:1/t.jsonl", "holds a user name and password"),
        (f"input.paths.0=https://{HUSH}@127.0.0.1:1/t.jsonl", "holds a user name and password"),
        (f"input.paths.0=http://127.0.0.1:1/t.jsonl?X-Amz-Signature={HUSH}", "http://127.0.0.1:1/t.jsonl"),
        (f"input.paths.0=nosuch://h/t.jsonl?sig={HUSH}", "nosuch://h/t.jsonl"),
        (f"model.path=https://user:{HUSH}@host/model", "has a password, a signature or a token in it"),
        (f"model.path=https://host/model?token={HUSH}", "has a password, a signature or a token in it"),
    ],
)  # fmt: skip
def test_what_was_given_with_set_is_not_said(
    spec: Path, override: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    for package in PACKAGES:
        caplog.set_level(logging.DEBUG, logger=package)
    result = invoke("plan", spec, "--set", override)
    assert result.exit_code == 2
    assert said in result.stderr
    assert HUSH not in result.output + caplog.text


def test_a_secret_that_stands_in_the_file_is_not_said(spec: Path) -> None:
    values = yaml.safe_load(spec.read_text())
    values["output"]["storage_options"] = {"secret": HUSH}
    spec.write_text(yaml.safe_dump(values))
    result = invoke("plan", spec, "--set", "output.storage_options.secret.x=1")
    assert result.exit_code == 2
    assert "output.storage_options.secret is a value that is not shown, which has no 'x'" in result.stderr
    assert HUSH not in result.output
    assert HUSH not in repr(load_spec(spec).job)


def test_a_store_and_a_listing_refuse_secrets_without_telling_them() -> None:
    with pytest.raises(PlanError, match="signature") as caught:
        open_store(OutputSpec(path=f"s3://bucket/out?X-Amz-Signature={HUSH}"))
    assert HUSH not in str(caught.value)


def test_the_keys_of_secrets_are_named_before_a_spec_travels(spec: Path) -> None:
    values = yaml.safe_load(spec.read_text())
    values["output"] |= {
        "path": "s3://bucket/out",
        "storage_options": {"key": "k", "client_kwargs": {"endpoint_url": "http://h", "aws_session_token": HUSH}},
    }
    values["input"]["paths"] = [f"https://host/t.jsonl?sig={HUSH}", "s3://bucket/in/*.jsonl"]
    signed = f"https://host/model?sig={HUSH}"
    steps = [{"model": signed}, {"model": {"path": signed, "storage_options": {"secret": HUSH}}}]
    assert secret_keys({"cascade": steps}) == [
        "cascade[0].model",
        "cascade[1].model.path",
        "cascade[1].model.storage_options.secret",
    ]
    assert secret_keys(values) == [
        "input.paths[0]",
        "output.storage_options.key",
        "output.storage_options.client_kwargs.aws_session_token",
    ]
    spec.write_text(yaml.safe_dump(values))
    submission = Submission.of(spec)
    assert HUSH not in submission.entrypoint + submission.name
    assert HUSH in submission.to_yaml()  # the job needs it


@dataclass
class SignedPlace:
    """A server of files by URLs that are signed with `signature`, as object stores have them."""

    files: Mapping[str, bytes]
    signature: str = HUSH
    url: str = ""
    refused: list[str] = field(default_factory=list)

    def signed(self, name: str) -> str:
        return f"{self.url}/{name}?X-Amz-Date=2026&X-Amz-Signature={self.signature}"


@pytest.fixture
def signed_place(tmp_path: Path) -> Iterator[SignedPlace]:
    names = ("a.jsonl", "b.jsonl")
    place = SignedPlace(
        files={name: write_corpus(tmp_path / name, 24, seed=n).read_bytes() for n, name in enumerate(names)}
    )

    class Server(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            parts = urlsplit(self.path)
            content = place.files.get(parts.path.lstrip("/"))
            is_signed = parse_qs(parts.query).get("X-Amz-Signature") == [place.signature]
            if content is None or not is_signed:
                place.refused.append(parts.path)
                self.send_response(403)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, end = 0, len(content)
            given = self.headers.get("Range")
            if given is not None:
                first, _, last = given.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last) + 1 if last else end, end)
            self.send_response(200 if given is None else 206)
            self.send_header("Content-Length", str(end - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", '"v1"')
            if given is not None:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            self.end_headers()
            if with_body:
                self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    place.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield place
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_run_goes_on_with_urls_that_are_signed_anew_and_keeps_no_signature(
    signed_place: SignedPlace, tiny_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    task, model = ClassifyTask(text="{{ body }}"), tiny_checkpoint("sequence-classification")
    job = job_of(task, model=model, corpus=tmp_path, out=out, unit_rows=8)

    def with_signed(names: tuple[str, ...] = ("a.jsonl", "b.jsonl")) -> InputSpec:
        return InputSpec(paths=tuple(map(signed_place.signed, names)))

    job = replace(job, input=with_signed())
    first = fingerprint_of(job, find_sources(job.input).files)
    assert drive(job, make_engine=fake_engine).exit_status == 0
    before = sorted(map(json.dumps, rows_in(out)))
    assert len(before) == 48
    (out / "receipts/part-00000001.json").unlink()  # as if it had been stopped before

    signed_place.signature = "renewedrenewed"
    renewed = replace(job, input=with_signed())
    assert fingerprint_of(renewed, find_sources(renewed.input).files) == first
    assert drive(renewed, make_engine=fake_engine).exit_status == 0
    assert not signed_place.refused
    assert sorted(map(json.dumps, rows_in(out))) == before

    for file in out.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for secret in (HUSH, "renewedrenewed", "X-Amz"):
                assert secret.encode() not in content, file
    assert json.loads((out / "run.json").read_bytes())["spec"]["input"]["paths"][0] == f"{signed_place.url}/a.jsonl"


def test_a_signed_file_that_cannot_be_read_is_told_without_its_signature(signed_place: SignedPlace) -> None:
    spec = InputSpec(paths=(signed_place.signed("a.jsonl").replace(HUSH, "wrong" * 5),))
    with pytest.raises(PlanError, match=r"/a\.jsonl") as caught:
        find_sources(spec)
    assert "wrongwrong" not in str(caught.value)
    assert "wrongwrong" not in repr(Storage.of(spec))
