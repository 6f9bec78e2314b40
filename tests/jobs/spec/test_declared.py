"""Keys of a spec that are made from declared options: one more option is one more key, and nothing else is written."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import ValidationError

from jobs.serve.spec import ServiceSpecYaml
from jobs.spec.declared import with_options_of
from jobs.spec.document.errors import problems_of
from jobs.spec.document.places import document_of
from jobs.spec.engine import EngineYaml
from jobs.spec.job import JobSpecYaml
from models.config.option import Option, declared
from pipelines.job import EngineSpec
from pipelines.task_base.yaml import Strict
from tests.helpers.jobs.spec_keys import keys_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Deeper(EngineSpec):
    """A toy: the engine's options and two more."""

    depth: Annotated[int | None, Option("steps ahead", unit="tokens", least=1, most=8, unset="by device")] = None
    side: Annotated[Literal["left", "right"], Option("where it begins")] = "left"


@with_options_of(Deeper)
class DeeperYaml(Strict):
    """`engine` with them."""


def test_every_option_is_a_key_of_jobs_and_of_services() -> None:
    job, service = keys_of(JobSpecYaml), keys_of(ServiceSpecYaml)
    for name, option in declared(EngineSpec).items():
        assert job[f"engine.{name}"].default == service[f"models[].engine.{name}"].default == option.default


def test_an_engine_block_that_says_nothing_is_the_defaults() -> None:
    assert EngineYaml().to_engine() == EngineSpec()


def test_an_option_that_is_declared_is_read() -> None:
    keys = DeeperYaml.model_validate({"depth": 3, "side": "right", "max_num_seqs": 4}).model_dump()
    assert Deeper(**keys) == Deeper(depth=3, side="right", max_num_seqs=4)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"depth": 9}, "depth: was 9; it must be a whole number of tokens from 1 to 8"),
        ({"depth": "3"}, "depth: was '3'; it must be a whole number of tokens from 1 to 8"),
        ({"side": "up"}, "side: was 'up'; it must be one of left, right"),
        ({"depht": 3}, "depht: unknown key; did you mean depth?"),
        ({"cache_bytes": 2**63}, "cache_bytes: was 9223372036854775808; it must be a whole number of bytes, at least 1, at most"),
    ],
)  # fmt: skip
def test_what_it_may_not_be_is_refused_in_its_words(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DeeperYaml.model_validate(values)
    (found,) = problems_of(caught.value, DeeperYaml, document_of(values, "spec"))
    assert problem in found
