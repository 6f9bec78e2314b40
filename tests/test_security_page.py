"""docs/security.md says what the code holds: every limit has the number that it has, and what is named is there."""

from pathlib import Path

import pytest

from actors.http import connections, readiness
from actors.http.bodies import classify_schema
from actors.http.bodies.types import MAX_FIELDS
from actors.http.limits import MAX_DOCUMENT_CHARS, MAX_TEXT_CHARS, RequestLimits
from actors.http.routes import own_prompts
from actors.http.texts import label_work, text_pool, text_work
from jobs.spec.document import yaml_reading
from models.checkpoint import whole_files
from models.config import limits as config_limits
from models.parallel import channel, entrance, handshake
from models.tasks.examples import MAX_EXAMPLES
from models.templates import budget, sandbox
from models.templates import source as template_source
from pipelines.unit_steps import isolated_preparer
from tests.faults.hostile.attacks import attacks

PAGE = Path("docs/security.md").read_text()
ROWS = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line.startswith("|")}
HTTP = RequestLimits()


def test_every_attack_has_its_figures_on_the_page() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("|")]
    found = {row[0]: row[1:] for row in rows if len(row) == 11}
    names = {attack.name: attack.who for attack in attacks()}
    assert found.keys() - {"attack", "---"} == names.keys()
    for name, who in names.items():
        by, *_, outcome, seconds, stall, memory, neighbour, computing = found[name]
        assert (by, bool(outcome)) == (who, True), name
        assert all(float(figure) >= 0 for figure in (seconds, stall, memory, neighbour, computing)), name


def mib(num_bytes: int) -> str:
    return f"{num_bytes >> 20} MiB"


LIMITS: dict[str, list[str]] = {
    "a body": [
        mib(HTTP.max_body_bytes),
        mib(HTTP.max_bodies_bytes),
        f"{HTTP.body_s:g} s",
        f"{HTTP.body_idle_s:g} s",
    ],
    "what is in a body": [f"{HTTP.max_parts:,}", f"{HTTP.max_values:,}", f"{MAX_FIELDS} fields"],
    "a request": [
        f"{HTTP.max_inputs:,} inputs",
        f"{HTTP.max_request_tokens:,} tokens",
        f"{HTTP.max_n} answers",
        f"{HTTP.max_prompt_logprobs:,} log",
    ],
    "labels of a request": [
        f"{classify_schema.MAX_LABELS:,} labels",
        f"{MAX_EXAMPLES} examples",
        f"{own_prompts.MAX_PAIRS:,} pairs",
        f"{label_work.MAX_LABEL_CHARS:,} characters",
    ],
    "a text": [f"{MAX_TEXT_CHARS:,}", f"{MAX_DOCUMENT_CHARS:,}"],
    "a connection": [
        f"{connections.HEAD_S:g} s",
        f"{connections.IDLE_S:g} s",
        f"{connections.MAX_HEAD_BYTES >> 10} KiB",
    ],
    "`/ready`": ["once a second"] if readiness.FRESH_S == 1 else [f"{readiness.FRESH_S:g} s"],
    "a chat template or tokenizer, for a request": [
        f"{text_pool.LIMITS.step_s:g} s",
        f"{text_work.CHARS_PER_S:,}",
        mib(text_pool.LIMITS.memory_bytes),
        f"{text_pool.MAX_WAIT_S:g} s",
    ],
    "a row's templates and tokenizing, in a job": [
        f"{isolated_preparer.LIMITS.step_cpu_s:g} s",
        f"{isolated_preparer.LIMITS.memory_bytes >> 30} GiB",
    ],
    "a template": [
        f"{template_source.MAX_SOURCE_CHARS:,}",
        f"{template_source.MAX_TOKENS:,}",
        f"{template_source.MAX_DEPTH} levels",
        f"{budget.MAX_STEPS:,}",
        f"{sandbox.MAX_OUTPUT_CHARS:,}",
    ],
    "`config.json`": [
        f"{config_limits.MAX_LAYERS:,}",
        f"{config_limits.MAX_LABELS:,}",
        f"{config_limits.MAX_POSITIONS:,}",
    ],
    "a checkpoint's files that are read whole": [
        f"{mib(whole_files.max_bytes('config.json'))} of JSON",
        f"{mib(whole_files.max_bytes('tokenizer.json'))} of `tokenizer.json`",
        f"{mib(whole_files.max_bytes('chat_template.jinja'))} a chat template",
    ],
    "a job or service spec": [f"{yaml_reading.MAX_NODES:,}", f"{yaml_reading.MAX_DEPTH} levels"],
    "a greeting between shards": [
        f"{entrance.GREETING_S:g} s",
        f"{handshake.HELLO_BYTES + channel.MAC_BYTES} bytes",
        f"{entrance.MAX_PENDING} at",
    ],
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_on_the_page_is_the_codes(name: str) -> None:
    for number in LIMITS[name]:
        assert number in ROWS[name]


def test_what_the_page_names_is_there() -> None:
    words = PAGE.replace("(", " ").replace(")", " ").replace("`", " ").replace(",", " ").split()
    paths = [word for word in words if word.startswith(("actors/", "models/", "jobs/", "pipelines/", "tests/", "k8s/"))]
    assert paths
    assert not [path for path in paths if not list(Path().glob(path.rstrip("./;")))]
