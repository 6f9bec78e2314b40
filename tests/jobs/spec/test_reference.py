"""README's tables of keys against the models that read specs: every key, its range and its default, and no other."""

import pytest

from jobs.serve.spec import ServiceSpecYaml
from jobs.spec.engine import EngineYaml
from jobs.spec.job import JobSpecYaml, with_kinds
from jobs.spec.model import ModelYaml
from models.engine.rules.table import PARAMETERS
from pipelines.tasks.labels.labels_yaml import AskedLabelsYaml
from tests.helpers.jobs.spec_keys import Row, faults, keys_of, part_of_readme, rows_of

JOB, SERVICE = keys_of(with_kinds(JobSpecYaml)), keys_of(ServiceSpecYaml)


def test_every_key_of_a_job_stands_in_the_reference_as_it_is() -> None:
    """But for those of `model` and `engine`, which a step of `cascade` has too, and of labels, which a question has."""
    shared = {
        *keys_of(ModelYaml, "cascade[].model."),
        *keys_of(EngineYaml, "cascade[].engine."),
        *keys_of(AskedLabelsYaml, "task.questions."),
    }
    assert shared <= JOB.keys()
    own = {name: key for name, key in JOB.items() if name not in shared}
    assert faults(own, rows_of(part_of_readme("The job spec"))) == []


def test_parameters_of_rules_stand_in_the_reference_as_the_rules_declare_them() -> None:
    rows = rows_of(part_of_readme("The job spec"))
    said = {name: rows[f"task.sampling.{name}"].value for name in PARAMETERS}
    assert said == {name: f"{each.purpose}; {each.kind.allowed}" for name, each in PARAMETERS.items()}


def test_every_key_of_a_service_stands_in_the_reference_as_it_is() -> None:
    """But for those of a job's `model` and `engine`, which an entry of `models` has too."""
    shared = {*keys_of(ModelYaml, "models[]."), *keys_of(EngineYaml, "models[].engine.")}
    own = {name: key for name, key in SERVICE.items() if name not in shared}
    assert {name for name in own if name.startswith("models[]")} == {"models[].name"}
    assert faults(own, rows_of(part_of_readme("Online"))) == []


@pytest.mark.parametrize(
    ("name", "is_there"),
    [
        ("model.path", True), ("model.options.mamba_dt_clamp", True), ("model.quantization.block_size", True),
        ("engine.step_timeout_s", True), ("input.schema", True), ("task.messages[].role", True),
        ("task.sampling.max_tokens", True), ("engine", False), ("input.column_types", False), ("models", False),
    ],
)  # fmt: skip
def test_keys_are_found_wherever_they_are(name: str, is_there: bool) -> None:
    assert (name in JOB) is is_there


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (None, "has no line"),
        (
            Row(value="sequences that run at once; from 1 to 65,536", default="256"),
            "does not say 'a whole number from 1",
        ),
        (
            Row(value="sequences that run at once; a whole number from 1 to 65,536", default="255"),
            "has the default '256'",
        ),
    ],
)
def test_a_line_that_is_wrong_is_found(row: Row | None, said: str) -> None:
    name = "engine.max_num_seqs"
    (fault,) = faults({name: JOB[name]}, {} if row is None else {name: row})
    assert said in fault


def test_a_line_of_a_key_that_is_none_is_found() -> None:
    page = "| key | value | default |\n|---|---|---|\n| `engine.depth` | a number | 1 |\n"
    assert faults({}, rows_of(page)) == ["engine.depth is no key"]
