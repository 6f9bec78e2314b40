"""What every part of the job spec's schema shares: strictness, keys that come later, problems that belong to one key."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


def wrong(key: str, text: str) -> PydanticCustomError:
    """A problem of one key, raised from a check of the whole mapping."""
    return PydanticCustomError("at_key", "{text}", {"key": key, "text": text})


class Strict(BaseModel):
    """No coercion, no unknown keys. `later` names keys that are known but cannot be honoured yet, and why."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    later: ClassVar[Mapping[str, str]] = {}
