"""How a spec writes sampling parameters. A key whose feature comes later is refused by name, with a sentence."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, ValidationInfo, field_validator, model_validator

from models.engine.scheduling.request import SamplingParams
from models.errors import ParameterError
from pipelines.task_base.yaml import MAX_COUNT, Strict, wrong

CONSTRAINED: Final = dict.fromkeys(
    ("json_schema", "regex", "choice"),
    "is not available yet: answers bound to a JSON schema, a regex or a choice come in a later version",
)
_PENALTY = "is not available yet: penalties and logit biases come in a later version"


class SamplingYaml(Strict):
    """`task.sampling`; ranges are those of `SamplingParams`."""

    later: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias"), _PENALTY),
        "n": "is not available yet: a row has one answer",
        "prompt_logprobs": "is not available in jobs: no result column holds the log probabilities of a prompt",
        "best_of": "is not available yet: a row has one answer",
        **CONSTRAINED,
    }

    max_tokens: int = Field(16, description="a whole number, at least 1")
    min_tokens: int = Field(0, description="a whole number from 0 to max_tokens")
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
        given: dict[str, Any] = {"max_tokens": 2**31, name: tuple(value) if isinstance(value, list) else value}
        try:
            SamplingParams(**given)
        except ParameterError as error:
            raise ValueError(error.fault) from error
        return value

    @model_validator(mode="after")
    def _min_below_max(self) -> "SamplingYaml":
        if self.min_tokens > self.max_tokens:
            raise wrong(
                "min_tokens", f"was {self.min_tokens}; it must be from 0 to max_tokens, which is {self.max_tokens}"
            )
        return self

    def to_params(self) -> SamplingParams:
        """The same values as the engine takes them."""
        values: dict[str, Any] = self.model_dump()
        values.update(stop=tuple(self.stop), stop_token_ids=tuple(self.stop_token_ids))
        return SamplingParams(**values)
