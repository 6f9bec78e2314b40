"""The parameters of rules over the next token as fields of request bodies: what the rules
declare, with bounds of a service."""

from collections.abc import Mapping, Sequence, Sized
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from models.engine.rules.kinds import MisfitError
from models.engine.rules.rule import Parameter

MAX_ITEMS: Final = 1024
"""The most items of a list or map: the engine looks at all of them in each step, and every request
waits for that."""

_SIZES: Final[Mapping[str, str]] = {"array": "maxItems", "object": "maxProperties"}


def field_of(parameter: Parameter) -> Any:
    """The parameter as pydantic has a field: None asks for nothing, as its default does."""

    def taken(value: object) -> Any:
        if value is None:
            return None
        if isinstance(value, Sized) and not isinstance(value, str) and len(value) > MAX_ITEMS:
            raise PydanticCustomError(
                "too_long",
                "there are {found} items; at most {most} are possible",
                {"found": len(value), "most": MAX_ITEMS},
            )
        try:
            return parameter.kind.taken(value)
        except MisfitError as error:
            at = "" if error.at is None else f"[{error.at}] "
            raise PydanticCustomError("misfit", "{text}", {"text": f"{at}{error.text(parameter.kind)}"}) from error

    own = parameter.kind.schema
    size = _SIZES.get(own["type"])
    schema = {**own} if size is None else {**own, size: MAX_ITEMS}
    annotation = Annotated[Any, PlainValidator(taken), WithJsonSchema({"anyOf": [schema, {"type": "null"}]})]
    return annotation, Field(None, description=parameter.purpose)


def given_of(body: object, names: Sequence[str]) -> dict[str, Any]:
    """What a body says about these parameters."""
    values = {name: getattr(body, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
