"""OpenAI's batch files as jobs: every line is answered as the HTTP API answers it, and nothing on one stops the others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.completion import Completion

from jobs.report.report import gather
from jobs.report.source import RunOutput
from pipelines.io.open_output import open_store
from pipelines.job import Job
from pipelines.ledger.check import check_run
from pipelines.ledger.receipts import receipt_name
from tests.helpers.close import close_to
from tests.helpers.pipelines.batches import (
    CHAT,
    DOCUMENTED,
    TEXTS,
    VECTORS,
    comparable,
    line,
    lines_of,
    over_http,
    spec_of,
)
from tests.helpers.pipelines.running import contents, drive

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

CREATED = 1769817600  # 2026-01-31, in UTC
TYPES: dict[str, Any] = {CHAT: ChatCompletion, TEXTS: Completion, VECTORS: CreateEmbeddingResponse}
UNTYPED = ("echoed", "base64")  # nulls and a text, which OpenAI's API sends and the types of its client leave out
USER = [{"role": "user", "content": "how are you today?"}]

GOOD = (
    *DOCUMENTED,
    line("greedy", TEXTS, prompt="Hello world", max_tokens=6, temperature=0),
    line("seeded", CHAT, messages=USER, max_tokens=6, seed=7, n=2, logprobs=True, top_logprobs=2),
    line("several", TEXTS, prompt=["a b", "日本語"], max_tokens=3, temperature=0, logprobs=2, stop=["z"]),
    line("echoed", TEXTS, prompt="a b", max_tokens=3, temperature=0, logprobs=2, echo=True),
    line("vectors", VECTORS, input=["Zürich 12345", "日本語"]),
    line("base64", VECTORS, input="x", encoding_format="base64"),
)
REFUSED = (
    line("no messages", CHAT, max_tokens=3),
    line("unknown field", TEXTS, prompt="x", colour="red"),
    line("too long", TEXTS, prompt="x", max_tokens=100_000),
    line("too many", CHAT, messages=USER, n=99),
    line("no text", VECTORS, input=[]),
)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("causal", max_position_embeddings=512)


def flaws(job: Job) -> list[str]:
    return [str(flaw) for flaw in check_run(open_store(job.output))]


def test_every_line_is_answered_as_over_http(model: Path, tmp_path: Path) -> None:
    lines = [*GOOD[:4], *REFUSED, *GOOD[4:]]
    job = spec_of(tmp_path, model, lines).job
    assert drive(job).exit_status == 0
    assert flaws(job) == []
    answers = lines_of(tmp_path / "out/output.jsonl")
    assert [answer["custom_id"] for answer in answers] == [json.loads(each)["custom_id"] for each in GOOD]
    assert len({answer["id"] for answer in answers}) == len(GOOD)
    bodies = {answer["custom_id"]: answer["response"]["body"] for answer in answers}
    for request, answer in zip(map(json.loads, GOOD), answers, strict=True):
        assert answer.keys() == {"id", "custom_id", "response", "error"}
        assert answer["error"] is None
        assert answer["response"]["status_code"] == 200
        assert answer["response"]["body"].get("created", CREATED) == CREATED
        if request["custom_id"] not in UNTYPED:
            TYPES[request["url"]].model_validate(answer["response"]["body"], strict=True)
    errors = lines_of(tmp_path / "out/errors.jsonl")
    assert [error["custom_id"] for error in errors] == [json.loads(each)["custom_id"] for each in REFUSED]
    is_drawn = {"request-1", "request-2"}  # whose seed HTTP does not know
    for request, (status, said) in zip(lines, over_http(model, lines), strict=True):
        custom_id = json.loads(request)["custom_id"]
        if status == 200 and custom_id not in is_drawn:
            assert comparable(bodies[custom_id]) == close_to(comparable(said)), custom_id
        elif status != 200:
            response = next(error["response"] for error in errors if error["custom_id"] == custom_id)
            assert (response["status_code"], response["body"]) == (status, said)


def test_a_run_that_is_resumed_writes_the_same_bytes(model: Path, tmp_path: Path) -> None:
    drawn = [line(f"row {n}", CHAT, messages=USER, max_tokens=5, n=1 + n % 2) for n in range(12)]
    lines = [*drawn[:6], "no JSON", REFUSED[0], *drawn[6:]]
    job = spec_of(tmp_path, model, lines, more="unit_rows: 3\n").job
    out, files = tmp_path / "out", ("output.jsonl", "errors.jsonl")
    assert drive(job).exit_status == 0
    texts = [json.dumps(each["response"]["body"]["choices"]) for each in lines_of(out / "output.jsonl")]
    assert len(set(texts)) > 6  # the same question is not answered alike: every row draws for itself

    whole = contents(out), [(out / name).read_bytes() for name in files]
    for unit in (1, 3):
        (out / receipt_name(unit)).unlink()
    for name in files:
        (out / name).unlink()
    assert drive(job).exit_status == 0
    assert flaws(job) == []
    assert (contents(out), [(out / name).read_bytes() for name in files]) == whole

    with (out / "output.jsonl").open("ab") as file:
        file.write(b"more\n")
    (out / "errors.jsonl").unlink()
    assert [" ".join(flaw.split()[:4]) for flaw in flaws(job)] == [
        "output.jsonl is not what",
        "errors.jsonl cannot be read:",
    ]
    assert drive(job).exit_status == 0  # nothing is left to compute
    assert flaws(job) == []


def test_a_hostile_file_loses_nothing(model: Path, tmp_path: Path) -> None:
    good = {"method": "POST", "url": TEXTS, "body": {"model": "m", "prompt": "x", "max_tokens": 2}}
    ask = {"custom_id": "fine", **good}
    long_id = "long " * 2000
    lines: dict[bytes | str, str | None] = {
        "not json": "malformed_json",
        "[1, 2]": "not_an_object",
        b'{"custom_id": "\xff"}': "invalid_utf8",
        "{}": "missing_value",
        json.dumps({**ask, "custom_id": 7}): "invalid_value",
        json.dumps({**ask, "custom_id": "half \ud800"}): "invalid_value",
        json.dumps({**ask, "custom_id": "get", "method": "GET"}): "invalid_value",
        json.dumps({**ask, "custom_id": "url", "url": "/v1/files"}): "invalid_value",
        json.dumps({**ask, "custom_id": "url 2", "url": ["/v1/completions"]}): "invalid_value",
        json.dumps({**ask, "custom_id": "body", "body": "text"}): "invalid_value",
        json.dumps({**ask, "custom_id": "stream", "body": {**good["body"], "stream": True}}): "400",  # type: ignore[dict-item]
        json.dumps({**ask, "custom_id": "huge", "body": {"model": "m", "prompt": "x" * (9 << 20)}}): "413",
        json.dumps({**ask, "custom_id": "NaN", "body": {**good["body"], "temperature": float("nan")}}): "400",  # type: ignore[dict-item]
        json.dumps({**ask, "custom_id": "half", "body": {**good["body"], "prompt": "\ud800"}}): "400",  # type: ignore[dict-item]
        '{"custom_id": "deep", "method": "POST", "url": "/v1/completions", "body": '
        + '{"a":' * 5000
        + "1"
        + "}" * 5001: ("malformed_json"),
        json.dumps({**ask, "custom_id": long_id}): None,
        json.dumps(ask): None,
        json.dumps({**ask, "more": "keys"}): "invalid_value",  # its custom_id stands on the line before
    }
    job = spec_of(tmp_path, model, list(lines)).job
    assert drive(job).exit_status == 0
    assert flaws(job) == []
    answers, errors = (lines_of(tmp_path / "out" / name) for name in ("output.jsonl", "errors.jsonl"))
    assert [answer["custom_id"] for answer in answers] == [long_id, "fine"]
    told = [
        error["error"]["code"] if error["response"] is None else str(error["response"]["status_code"])
        for error in errors
    ]
    assert told == [code for code in lines.values() if code is not None]
    assert [error["custom_id"] for error in errors] == [
        None, None, None, None, None, None, "get", "url", "url 2", "body", "stream", "huge", "NaN", "half", None, "fine",
    ]  # fmt: skip
    assert len({each["id"] for each in (*answers, *errors)}) == len(lines)

    facts = gather(RunOutput.open(job.output, input_options={}))
    assert {kind.kind: kind.count for kind in facts.failures}["refused"] == 4


def test_a_checkpoint_without_that_head_refuses_line_by_line(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    job = spec_of(tmp_path, tiny_checkpoint("sequence-classification"), DOCUMENTED).job
    assert drive(job).exit_status == 0
    assert (tmp_path / "out/output.jsonl").read_bytes() == b""
    codes = [error["response"]["body"]["error"]["code"] for error in lines_of(tmp_path / "out/errors.jsonl")]
    assert codes == ["model_not_supported"] * 2
