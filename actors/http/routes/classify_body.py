"""What a classify request says, checked: each key next to the others."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from actors.http.bodies.classify_schema import ClassifyBody
from actors.http.errors import ApiError, unsupported
from actors.http.limits import RequestLimits
from actors.http.routes.prompts import check_num_inputs
from actors.http.texts.label_work import LabelQuestion, OwnLabels
from models.tasks.label_prompt import LabelledText

FORMS: Final = ("input", "prompt", "messages")
"""What of a request is classified, of which it has one."""

_ASKS_NOTHING: Final[Mapping[str, tuple[Any, ...]]] = {"calibrate": (None, "none"), "label_mass": (None, False)}
_OF_LABELS: Final = (
    "prompt", "messages", "chat_template_kwargs", "labels", "question", "label_texts", "label_stop", "examples",
    "calibrate", "label_mass",
)  # fmt: skip
_OF_INPUT: Final = ("question", "examples", "calibrate")


def check_head(body: ClassifyBody) -> None:
    """Refuses what a classification head is not asked."""
    for name in filter(lambda name: asks(body, name), _OF_LABELS):
        raise unsupported(name, "is for causal models; this one has a classification head with classes of its own")


def check_forms(body: ClassifyBody) -> None:
    """Refuses none or several of what is classified."""
    given = [name for name in FORMS if getattr(body, name) is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "nothing is given to classify"
        raise ApiError(400, f"{what}; give one of {', '.join(FORMS)}", param=given[1] if given else FORMS[0])


def texts_of(body: ClassifyBody, name: Literal["input", "prompt"], limits: RequestLimits) -> list[str]:
    """The texts of a key of the body.

    Raises:
        ApiError: 400, there are too many, or one is empty.
    """
    given = getattr(body, name)
    texts = [given] if isinstance(given, str) else list(given)
    check_num_inputs(texts, limits, param=name)
    for index, text in enumerate(texts):
        if not text:
            raise ApiError(400, f"{name}[{index}] is empty", param=name)
    return texts


def asks(body: ClassifyBody, name: str) -> bool:
    """Whether a key asks for something."""
    return getattr(body, name) not in _ASKS_NOTHING.get(name, (None,))


def own_labels_of(body: ClassifyBody) -> OwnLabels:
    """The labels of a body in which the rest fits them.

    Raises:
        ApiError: 400, there are none, or a key does not go with the others.
    """
    if body.labels is None:
        raise ApiError(400, "labels: a causal model needs the labels to choose from", param="labels")
    if body.input is None:
        _check_whole(body)
    if asks(body, "chat_template_kwargs") and body.messages is None:
        raise ApiError(400, "chat_template_kwargs goes with messages", param="chat_template_kwargs")
    for label in body.label_texts or {}:
        _check_is_label(label, body.labels, "label_texts")
    for number, example in enumerate(body.examples or ()):
        _check_is_label(example.label, body.labels, f"examples[{number}].label")
    return OwnLabels(labels=tuple(body.labels), label_texts=body.label_texts or {}, label_stop=body.label_stop)


def question_of(body: ClassifyBody) -> LabelQuestion:
    """What every `input` of a body is asked.

    Raises:
        ApiError: as `own_labels_of` does.
    """
    examples = tuple(LabelledText(text=each.text, label=each.label) for each in body.examples or ())
    descriptions = body.labels if isinstance(body.labels, dict) else {}
    return LabelQuestion(own=own_labels_of(body), question=body.question, descriptions=descriptions, examples=examples)


def _check_whole(body: ClassifyBody) -> None:
    """Refuses what is put around an input."""
    form = "prompt" if body.prompt is not None else "messages"
    for name in filter(lambda name: asks(body, name), _OF_INPUT):
        remedy = (
            "a whole one has no place for texts that say nothing" if name == "calibrate" else f"write it into {form}"
        )
        raise ApiError(400, f"{name} goes with input, not with {form}: {remedy}", param=name)
    if isinstance(body.labels, dict):
        raise ApiError(400, f"labels: descriptions go with input; write them into {form}", param="labels")


def _check_is_label(label: str, labels: Sequence[str] | Mapping[str, str], param: str) -> None:
    if label not in labels:
        raise ApiError(400, f"{param} names what is none of labels; give one of them", param=param)
