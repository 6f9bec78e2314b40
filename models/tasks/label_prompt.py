"""How a causal model is asked for a label where nobody has written a prompt.

    {label}: {description}          where labels have descriptions, a line each, and an empty line

    Text: {text of an example}      where there are examples
    Category: {its label}

    Text: {text}
    {question}                      where there is a question
    Category:

A label is what follows, with a space before it. The checkpoint's chat template is not used, and labels without a
description are not listed: which of several forms labels best was measured (docs/labelling.md, docs/decisions/0026), and
nothing in this one depends on the order of labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

FORM: Final = "text-category"
"""Which form it is. A run's record has it: rows that were asked in another way are not mixed with these."""

BEFORE_LABEL: Final = " "
"""What stands between the prompt and a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledText:
    """An example: a text, and what is written as its label behind the prompt, a space included."""

    text: str
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelPrompt:
    """The prompts of one job or request; `descriptions` are of labels as they are written."""

    descriptions: Mapping[str, str] = field(default_factory=dict)

    def of(self, text: str, question: str | None = None, examples: Sequence[LabelledText] = ()) -> str:
        """The prompt of a text. All examples are asked the same question."""
        described = "".join(f"{label}: {description}\n" for label, description in self.descriptions.items())
        shots = "".join(f"{_asked(each.text, question)}{each.label}\n\n" for each in examples)
        return f"{described}\n{shots}{_asked(text, question)}" if described else f"{shots}{_asked(text, question)}"


def written_label(label: str, label_texts: Mapping[str, str], *, before: str = BEFORE_LABEL) -> str:
    """What of a label is scored behind a prompt: its text where it has one of its own, else the label after what stands `before` it,
    which is nothing where the prompt is one's own."""
    return label_texts.get(label, f"{before}{label}")


def described(descriptions: Mapping[str, str], label_texts: Mapping[str, str]) -> dict[str, str]:
    """The descriptions of labels as they are written, from those of labels."""
    return {written_label(label, label_texts).strip(): text for label, text in descriptions.items()}


def _asked(text: str, question: str | None) -> str:
    return f"Text: {text}\nCategory:" if question is None else f"Text: {text}\n{question}\nCategory:"
