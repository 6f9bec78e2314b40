"""`cascade` of a job spec: several models in the place of `model`, each with the bound from which its answers are kept."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from jobs.errors import UsageError
from jobs.spec.document.key_paths import KeyPath
from jobs.spec.document.places import Places
from jobs.spec.engine import EngineYaml
from jobs.spec.model import ModelYaml
from models.errors import OptionError
from pipelines.job import EngineSpec, Escalation, Job, ModelSpec
from pipelines.task_base.judged import truth_column, why_not_judged
from pipelines.task_base.yaml import Strict

CASCADE: KeyPath = ("cascade",)


def model_at(step: int, places: Places) -> KeyPath:
    """Where the model of a step (from 0) stands in a spec with a cascade, or without one."""
    return (*CASCADE, step, "model") if places.has(CASCADE) else ("model",)


def engine_key(step: int, option: str, places: Places) -> KeyPath:
    """Where an option of a step's engines (from 0) stands: at the step, or in the spec's own `engine`."""
    own = (*CASCADE, step, "engine", option)
    return own if places.has(own) else ("engine", option)


class UntilYaml(Strict):
    """`until` of a step."""

    score: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(description="a number over 0, at most 1")


def _as_mapping(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class StepYaml(Strict):
    """One step of `cascade`."""

    model: Annotated[ModelYaml, BeforeValidator(_as_mapping)] = Field(
        description="a checkpoint, or a mapping with at least path"
    )
    until: UntilYaml | None = Field(None, description="a mapping with score")
    engine: EngineYaml = Field(EngineYaml(), description="a mapping of engine options")

    def engine_over(self, common: EngineYaml) -> EngineSpec:
        """The engines of this step: those of the spec with its own keys over them.

        Raises:
            OptionError: two of them do not go together.
        """
        own = {name: getattr(self.engine, name) for name in self.engine.model_fields_set}
        return common.model_copy(update=own).to_engine()


def steps_of(cascade: Sequence[StepYaml], common: EngineYaml) -> tuple[ModelSpec, EngineSpec, tuple[Escalation, ...]]:
    """The first model, its engines, and the further steps, each with the bound that stands at the one before it.

    Raises:
        OptionError: options of a step's engines do not go together.
    """
    engines = [step.engine_over(common) for step in cascade]
    further = (
        Escalation(
            below=None if before.until is None else before.until.score, model=step.model.to_model(), engine=engine
        )
        for before, step, engine in zip(cascade, cascade[1:], engines[1:], strict=False)
    )
    return cascade[0].model.to_model(), engines[0], tuple(further)


def is_cascade(values: Mapping[str, Any]) -> bool:
    """Whether a document has a cascade, whatever else it says."""
    return values.get("cascade") is not None


def no_model(value: Any) -> None:
    """Refuses a model beside a cascade."""
    del value
    raise ValueError("stands beside cascade, whose steps have the models; leave one of the two out")


def engine_problems(cascade: Sequence[StepYaml], common: EngineYaml, places: Places) -> list[str]:
    """One line for each step whose own engine options do not go with those of the spec."""
    found = []
    for number, step in enumerate(cascade):
        try:
            step.engine_over(common)
        except OptionError as error:
            found.append(places.problem((*CASCADE, number, "engine", error.option), error.problem))
    return found


def cascade_problems(job: Job, places: Places) -> list[str]:
    """One line for each thing that cannot be run step by step."""
    if not job.cascade:
        return []
    return [places.problem(path, text) for path, text in _problems(job, places)]


def _problems(job: Job, places: Places) -> Iterator[tuple[KeyPath, str]]:
    reason = job.task.why_no_confidence()
    if reason is not None:
        yield CASCADE, f"goes with tasks that say how sure they are of an answer: {reason}; give one model"
    for path in _keys_of_engines(job, "service", places):
        yield path, "a cascade is computed by engines of the job's own; leave it out"
    last = (*CASCADE, len(job.cascade), "until")
    if places.has(last):
        yield last, "stands at the last step, whose answers are kept whatever their score; leave it out"


def online_problems(job: Job, places: Places) -> list[str]:
    """One line for each key of engines that only a service has a use for."""
    text = "belongs to a service spec; a job's engines have no online requests"
    return [places.problem(path, text) for path in _keys_of_engines(job, "online_batched_tokens", places)]


def _keys_of_engines(job: Job, option: str, places: Places) -> Sequence[KeyPath]:
    """The keys that give the engines of a step, or of several, this option."""
    given = (number for number, engine in enumerate(job.engines) if getattr(engine, option) is not None)
    return [*dict.fromkeys(engine_key(number, option, places) for number in given)]


def bound_problems(job: Job, places: Places) -> list[str]:
    """One line for each step whose answers nothing says when to keep."""
    text = "this key is required and missing; it must be {score: a number over 0, at most 1}; `millrace calibrate` finds it"
    return [
        places.problem((*CASCADE, number, "until"), text)
        for number, further in enumerate(job.cascade)
        if further.below is None
    ]


def truth_to_calibrate_with(job: Job, given: str | None) -> str:
    """The column that a cascade's bounds are found with: the one `given`, or the spec's own.

    Raises:
        UsageError: there is none, or nothing to find.
    """
    if not job.cascade:
        raise UsageError(
            "the spec has no cascade, so there is no bound to find; give it one: cascade: [{model: ...}, {model: ...}]"
        )
    if job.task.judged is None:
        raise UsageError(why_not_judged(job.task.kind))
    column = given or truth_column(job.truth, "")
    if column is None:
        raise UsageError(
            "give --truth COLUMN, the column of the input that says what is right, or report: {truth: COLUMN} in the spec"
        )
    return column
