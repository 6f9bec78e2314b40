"""The OpenAPI document is true: whatever it allows gets an answer that it describes, and whatever it does not is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import positive_data_acceptance, unsupported_method

from actors.http.app import create_app
from actors.http.bodies.types import MAX_NAME
from actors.http.limits import RequestLimits
from actors.online.local import LocalModel
from tests.helpers.actors.serving import load, served, serving, shortened

MANY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)
OFTEN = settings(MANY, max_examples=300, derandomize=False)
SHORT = 64
ANSWERS_OF_ITS_HEAD = {
    "/v1/classify": "classifier",
    "/v1/extract": "tagger",
    **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank", "/v1/score"), "reranker"),
}


@pytest.fixture(scope="module")
def address(
    causal_path: Path, causal: LocalModel, classifier_path: Path, tagger_path: Path, reranker_path: Path
) -> Iterator[str]:
    others = {"classifier": classifier_path, "tagger": tagger_path, "reranker": reranker_path}
    loaded = {name: load(path) for name, path in others.items()}
    models = [served(name, others[name], model) for name, model in loaded.items()]
    short = shortened(served("causal", causal_path, causal), SHORT)  # so that answers without a limit are short
    with serving([short, *models], limits=RequestLimits(max_n=2)) as found:
        yield found
    for model in loaded.values():
        model.close()


schema = schemathesis.openapi.from_dict(create_app([]).openapi())
schema.config.phases.coverage.enabled = (
    False  # it makes 1,700 cases whenever tests are collected, whether these run or not
)


@pytest.mark.slow
@schema.parametrize()
@MANY
def test_every_answer_is_one_that_the_document_describes(case: schemathesis.Case[Any], address: str) -> None:
    check_answer(case, address)


@pytest.mark.faults
@schema.parametrize()
@OFTEN
def test_every_one_of_many_answers_is_one_that_the_document_describes(
    case: schemathesis.Case[Any], address: str
) -> None:
    check_answer(case, address)


def check_answer(case: schemathesis.Case[Any], address: str) -> None:
    if isinstance(case.body, dict) and isinstance(model := case.body.get("model"), str) and len(model) <= MAX_NAME:
        case.body["model"] = ANSWERS_OF_ITS_HEAD.get(case.path, "causal")
    case.call_and_validate(base_url=address, excluded_checks=[positive_data_acceptance, unsupported_method], timeout=60)
