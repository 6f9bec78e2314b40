"""How a spec writes sampling parameters. A key whose feature comes later is refused by name, with
a sentence.

Keys of rules over the next token are those that the rules declare (`models.engine.rules.table`).
"""

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import Field, PlainValidator, ValidationInfo, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from models.engine.rules.kinds import MisfitError, Number, Texts, Whole
from models.engine.rules.rule import Parameter
from models.engine.rules.table import PARAMETERS
from models.engine.scheduling.request import SamplingParams
from models.errors import ParameterError
from pipelines.task_base.change import Change, upwards
from pipelines.task_base.yaml import MAX_COUNT, Strict, wrong

CONSTRAINED: Final = dict.fromkeys(
    ("json_schema", "regex", "choice"),
    "is not available yet: answers bound to a JSON schema, a regex or a choice come in a later version",
)


class PlainSamplingYaml(Strict):
    """`task.sampling` without the keys of rules; ranges are those of `SamplingParams`."""

    changeable: ClassVar[Mapping[str, Change]] = {"max_tokens": upwards}
    later: ClassVar[Mapping[str, str]] = {
        "n": "is not available yet: a row has one answer",
        "prompt_logprobs": "is not available in jobs: no result column holds the log probabilities of a prompt",
        "best_of": "is not available yet: a row has one answer",
        **CONSTRAINED,
    }

    max_tokens: int = Field(16, description="a whole number, at least 1")
    temperature: float = Field(0.0, description="a number from 0 (greedy) to 100")
    top_k: Annotated[int, Field(le=MAX_COUNT)] = Field(0, description="a whole number, 0 (off) or more")
    top_p: float = Field(1.0, description="a number over 0 and at most 1 (off)")
    min_p: float = Field(0.0, description="a number from 0 (off) to 1")
    stop: list[str] = Field([], description="a list of strings, none of them empty")
    stop_token_ids: list[Annotated[int, Field(ge=0, le=MAX_COUNT)]] = Field(
        [], description="a list of token ids, each 0 or more"
    )
    ignore_eos: bool = Field(False, description="true or false")
    seed: int | None = Field(
        None, description="a whole number from 0 to 2**63 - 1; default: made from the job's seed and the row"
    )
    logprobs: int | None = Field(None, description="a whole number from 0 to 100, or null")

    @field_validator("*")
    @classmethod
    def _in_range(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        given: dict[str, Any] = {"max_tokens": MAX_COUNT, name: tuple(value) if isinstance(value, list) else value}
        try:
            SamplingParams(**given)
        except ParameterError as error:
            raise ValueError(error.text) from error
        return value

    @model_validator(mode="after")
    def _min_below_max(self) -> "PlainSamplingYaml":
        least: int = getattr(self, "min_tokens")  # noqa: B009 - a rule's
        if least > self.max_tokens:
            raise wrong("min_tokens", f"was {least}; it must be from 0 to max_tokens, which is {self.max_tokens}")
        return self

    def to_params(self) -> SamplingParams:
        """The same values as the engine takes them."""
        values: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        return SamplingParams(**values | {"stop": tuple(self.stop), "stop_token_ids": tuple(self.stop_token_ids)})


def _key_of(parameter: Parameter) -> Any:
    """A rule's parameter as a key: what it takes, and its default."""

    def taken(value: object) -> Any:
        try:
            return parameter.kind.taken(value)
        except MisfitError as error:
            raise _problem(parameter, error) from error

    return Annotated[Any, PlainValidator(taken)], Field(parameter.default, description=parameter.kind.allowed)


def _problem(parameter: Parameter, error: MisfitError) -> PydanticKnownError | PydanticCustomError:
    """The error at the key, or at the item of it that is wrong."""
    if error.at is not None:
        is_text_meant = isinstance(parameter.kind, Texts) and isinstance(error.given, bool | int | float | dt.date)
        hint = " (put it in quotes to make it text)" if is_text_meant else ""
        return wrong(error.at, f"{error.text(parameter.kind)}{hint}")
    if isinstance(parameter.kind, Number | Whole):
        return PydanticKnownError("float_type")
    return PydanticCustomError("misfit", "misfit")


if TYPE_CHECKING:
    SamplingYaml = PlainSamplingYaml
else:
    SamplingYaml = create_model(
        "SamplingYaml",
        __base__=PlainSamplingYaml,
        __doc__="`task.sampling`.",
        **{name: _key_of(parameter) for name, parameter in PARAMETERS.items()},
    )
