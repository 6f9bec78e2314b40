"""What the part of a spec that describes a task is made of: kinds of values, strictness, keys that come later, problems of one key."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pipelines.task_base.change import Change
from pipelines.task_base.task import Task

MAX_COUNT = 2**31 - 1

TASK_NAME = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"
"""What a task or a question is called among several: it begins the names of its columns."""

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]


def wrong(key: str | int, text: str) -> PydanticCustomError:
    """A problem of one key, or of one item, raised from a check of the whole mapping or list."""
    return PydanticCustomError("at_key", "{text}", {"key": key, "text": text})


class Strict(BaseModel):
    """No coercion, no unknown keys. `later` names keys that are known but cannot be honoured yet,
    and why; `changeable` those that may be another for rows that are tried again, and how."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    later: ClassVar[Mapping[str, str]] = {}
    changeable: ClassVar[Mapping[str, Change]] = {}

    @classmethod
    def change_of(cls, key: str) -> Change | None:
        """How a key may change while results that are there keep their meaning; None: not at
        all."""
        return cls.changeable.get(key)


class TaskYaml(Strict):
    """The `task` of a spec, of one `kind`, which a subclass declares as a field: `kind: Literal["generate"] = Field(...)`."""

    @abstractmethod
    def to_task(self) -> Task:
        """The task that is described."""

    @classmethod
    def keys_of(cls, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """How a spec writes the task that a run's record has these values of (`Task.recorded`):
        the keys that were set."""
        return {key: value for key, value in recorded.items() if value is not None}

    @classmethod
    @abstractmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        """The class of the task of this kind that a run's record has these values of (`Task.recorded`)."""
