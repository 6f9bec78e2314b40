"""`engine` of a spec: the options that `EngineSpec` declares, and how many engines there are."""

from typing import Annotated, Any, NamedTuple

from pydantic import Field, PlainValidator, model_validator

from jobs.errors import shown
from jobs.spec.declared import with_options_of
from jobs.spec.fields import Name, is_whole
from models.errors import OptionError
from pipelines.job import EngineSpec
from pipelines.task_base.change import Change, to_any
from pipelines.task_base.yaml import MAX_COUNT, Strict, wrong


class Replicas(NamedTuple):
    """From `least` to `most` engines; exactly `least` if `most` is None."""

    least: int
    most: int | None


def _replicas(value: Any) -> Replicas:
    least, most = value, None
    if isinstance(value, dict):
        if set(value) != {"min", "max"}:
            raise ValueError(f"was {shown(value)}; a mapping must have min and max, and nothing else")
        least, most = value["min"], value["max"]
    if not is_whole(least, 1) or (isinstance(value, dict) and not is_whole(most, 1)):
        text = f"it must be a whole number from 1 to {MAX_COUNT:,}, or a mapping {{min, max}} of two"
        raise ValueError(f"was {shown(value)}; {text}")
    if most is not None and most < least:
        raise ValueError(f"was {shown(value)}; max must be at least min")
    return Replicas(least, most)


@with_options_of(EngineSpec)
class EngineYaml(Strict):
    """`engine`."""

    service: Name | None = Field(None, description="the name of a running service")
    replicas: Annotated[Replicas, PlainValidator(_replicas)] = Field(
        Replicas(1, None), description="a whole number, at least 1, or a mapping {min, max} of two"
    )

    @model_validator(mode="after")
    def _go_together(self) -> "EngineYaml":
        try:
            self.to_engine()
        except OptionError as error:
            raise wrong(error.option, error.problem) from error
        return self

    @model_validator(mode="after")
    def _service_alone(self) -> "EngineYaml":
        others = sorted(self.model_fields_set - {"service", "max_model_len", "max_num_seqs"})
        if self.service is not None and others:
            raise wrong(others[0], "stands beside service, whose engines are there already; leave it out")
        return self

    @classmethod
    def change_of(cls, key: str) -> Change:
        """Engines of any size give the same answers."""
        del key
        return to_any

    def to_engine(self) -> EngineSpec:
        least, most = self.replicas
        return EngineSpec(replicas=least, max_replicas=most, **self.model_dump(exclude={"replicas"}))
