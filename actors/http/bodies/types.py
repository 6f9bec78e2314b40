"""What request bodies are made of: strict models, and lists and maps that say how long they may be.

The first wrong element ends a list's validation, the items of a map are counted before any is looked
at, and a field that takes several kinds of lists is judged by its first element: else a list of
numbers where texts belong would be tried as every kind, with an error for every element of it.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from actors.http.limits import MAX_INPUTS, MAX_REQUEST_TOKENS

MAX_FIELDS: Final = 64
"""Fields of one object; no model has as many."""

MAX_NAME: Final = 256
"""Characters of a model's name."""


class Body(BaseModel):
    """A request body, or an object in one. A field that is not declared is refused by its name."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_num_fields(cls, given: Any) -> Any:
        """Refuses many fields at once: each that is not declared would be an error of its own."""
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise PydanticCustomError(
                "too_many_fields",
                "there are {found} fields; at most {most} are possible",
                {"found": len(given), "most": MAX_FIELDS},
            )
        return given


def counted_items(most: int) -> BeforeValidator:
    """Refuses a map of more than `most` items at once: each could be an error of its own, or several."""

    def check(given: Any) -> Any:
        if isinstance(given, dict) and len(given) > most:
            raise PydanticCustomError(
                "too_many_items",
                "there are {found} items; at most {most} are possible",
                {"found": len(given), "most": most},
            )
        return given

    return BeforeValidator(check)


def _kind(given: Any) -> str | None:
    """Which member of a union of texts and lists is meant, by the first element of a list; None if
    it can be none of them."""
    if isinstance(given, str):
        return "str"
    if not isinstance(given, list):
        return None
    first = given[0] if given else ""
    if isinstance(first, list):
        return "list[list[int]]"
    return "list[int]" if isinstance(first, int | float) else "list[str]"


ModelName = Annotated[str, Field(max_length=MAX_NAME)]
Text = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_REQUEST_TOKENS, fail_fast=True)]
TextList = Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
TokenIdLists = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]

_OneText = Annotated[str, Tag("str")]
_Texts = Annotated[TextList, Tag("list[str]")]

Inputs = Annotated[
    _OneText | _Texts | Annotated[TokenIds, Tag("list[int]")] | Annotated[TokenIdLists, Tag("list[list[int]]")],
    Discriminator(
        _kind,
        custom_error_type="inputs_type",
        custom_error_message="Input should be a text, a list of texts, token ids or lists of them",
    ),
]
"""A text, texts, token ids or lists of them."""

Texts = Annotated[
    _OneText | _Texts,
    Discriminator(
        lambda given: "list[str]" if isinstance(given, list) else _kind(given),
        custom_error_type="texts_type",
        custom_error_message="Input should be a text or a list of texts",
    ),
]
"""A text or texts."""

NoList = Annotated[list[str], Field(max_length=0, fail_fast=True)]
NoMap = Annotated[dict[str, str], Field(max_length=0), counted_items(0)]
NoText = Annotated[str, Field(max_length=0)]
