"""Bodies of classification: by a head with classes of its own, or by a causal model that is asked for one of the request's labels."""

from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from actors.http.bodies.labelling_schema import InputUsage
from actors.http.bodies.schema import Messages, ResponseBody, TemplateVariables
from actors.http.bodies.types import Body, ModelName, Text, Texts, counted_items
from models.tasks.examples import MAX_EXAMPLES
from models.tasks.labels import Outcome

MAX_LABELS: Final = 1024

_Listed = Annotated[list[Text], Field(min_length=1, max_length=MAX_LABELS, fail_fast=True)]
_Described = Annotated[dict[Text, Text], Field(min_length=1, max_length=MAX_LABELS), counted_items(MAX_LABELS)]

Labels = Annotated[
    Annotated[_Listed, Tag("list[str]")] | Annotated[_Described, Tag("dict[str,str]")],
    Discriminator(
        lambda given: {list: "list[str]", dict: "dict[str,str]"}.get(type(given)),
        custom_error_type="labels_type",
        custom_error_message="Input should be a list of labels, or an object of each label and its description",
    ),
]
"""Labels, or labels with what each stands for."""

LabelTexts = Annotated[dict[Text, Text], Field(max_length=MAX_LABELS), counted_items(MAX_LABELS)]


class ExampleBody(Body):
    """A text, and the one of the labels that it has."""

    text: Text
    label: Text


class ClassifyBody(Body):
    """POST /v1/classify. One of `input`, `prompt` and `messages` is what is classified: texts; or, with a causal model, whole prompts or
    a conversation to which a label is the answer. Everything from `labels` on is for a causal model; `question`, descriptions and
    `examples` are put around `input`, with which `calibrate: "prior"` goes too."""

    model: ModelName
    input: Texts | None = None
    prompt: Texts | None = None
    messages: Messages | None = None
    chat_template_kwargs: TemplateVariables | None = None
    labels: Labels | None = None
    question: Text | None = None
    label_texts: LabelTexts | None = None
    label_stop: bool | None = None
    examples: Annotated[list[ExampleBody], Field(min_length=1, max_length=MAX_EXAMPLES, fail_fast=True)] | None = None
    calibrate: Literal["none", "prior"] | None = None
    label_mass: bool | None = None


def _is_none(value: Any) -> bool:
    return value is None


class Classification(ResponseBody):
    """The classes of one input. `labels` are those with a score of at least a half, where each is decided on its own. A regression has no
    `label`, and a `score` if it has one value; it is no probability. `label_mass`, where it is asked for, is how much of the model's belief
    all labels have together."""

    index: int
    label: str | None
    score: float | None
    scores: dict[str, float]
    labels: list[str] | None
    label_mass: float | None = Field(None, exclude_if=_is_none)


class ClassificationList(ResponseBody):
    """The answer to a classify request. `outcome` says what the scores mean: one class of several (softmax), each class on its own
    (sigmoid), whether the only class holds (sigmoid), or a regression's values; `calibrate`, that a prior was taken out of them."""

    object: Literal["list"] = "list"
    model: str
    outcome: Outcome
    calibrate: Literal["prior"] | None = Field(None, exclude_if=_is_none)
    data: list[Classification]
    usage: InputUsage
