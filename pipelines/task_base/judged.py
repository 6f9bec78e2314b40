"""How the results of a task that labels are held against what is right: what a row's result claims, and what a truth says.

Both are sets of items, a label of the whole row or of a place in its text, so that labels and spans are judged by one rule: an item
is right if the truth has the very same one. For spans that is the strict matching of CoNLL-2003 (Tjong Kim Sang and De Meulder):
bounds and label, both exactly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Form = Literal["label", "labels", "spans"]
"""One label a row, any number of them, or spans of its text."""

Item = tuple[tuple[int, int] | None, str]
"""A label, and the characters start to end (exclusive) that it is of; None: the whole row."""


Truth = str | Mapping[str, str]
"""The column of the input that says what is right; of several tasks one for each, by name."""


def truth_column(truth: Truth | None, name: str) -> str | None:
    """The column for the task of this name, which is empty where there is one task; None if it has none."""
    if isinstance(truth, Mapping):
        return truth.get(name)
    return None if name else truth


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a result says of one item: that it holds (`is_made`), or that it does not, and the score that it holds."""

    label: str
    score: float
    place: tuple[int, int] | None = None
    is_made: bool = True

    @property
    def item(self) -> Item:
        return self.place, self.label

    @property
    def confidence(self) -> float:
        """How sure the model is of what it says."""
        return self.score if self.is_made else 1.0 - self.score


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What of a task's results is judged, by the task's own names of its columns.

    `form_in` gives the form of a run's results from one row with all of `columns` and `more`; it raises `ValueError`, whose text
    says why, for results that have no labels. `claims_in` gives the claims of a row, from `columns` and those that `more` has for the form.
    """

    columns: tuple[str, ...]
    form_in: Callable[[Mapping[str, Any]], Form]
    claims_in: Callable[[Mapping[str, Any]], Sequence[Claim]]
    more: Mapping[Form, tuple[str, ...]] = field(default_factory=dict)

    @property
    def all_columns(self) -> tuple[str, ...]:
        return (*self.columns, *(name for names in self.more.values() for name in names))

    def columns_of(self, form: Form) -> tuple[str, ...]:
        """The columns that the claims of this form are made from."""
        return (*self.columns, *self.more.get(form, ()))


def why_not_judged(kind: str) -> str:
    """Why the results of a task of this kind, which has no `Judged`, cannot be held against a truth, and what to do."""
    return (
        f"the results of this task of the kind {kind} have no labels that a truth could be held against: that is for classify, and for "
        "extract without a question; texts, vectors and scores of two runs are compared by `millrace compare`"
    )


def truth_of(value: Any, form: Form) -> frozenset[Item] | None:
    """What a JSON value of a truth column says; None if it says nothing: null, or an empty text.

    Raises:
        ValueError: it is no truth of this form.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if form == "label":
        return frozenset({(None, _label(value))})
    if not isinstance(value, list):
        of = "labels" if form == "labels" else "spans, each {start, end, label}"
        raise ValueError(f"is {_kind(value)}; it must be a list of {of}")
    return frozenset((None, _label(item)) if form == "labels" else _span(item) for item in value)


def _label(value: Any) -> str:
    """Labels that are whole numbers or truth values in a truth column are texts in the results."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, str) and value.strip()):
        return str(value)
    raise ValueError(f"has {_kind(value)} in the place of a label; a label is a text, a whole number, true or false")


def _span(value: Any) -> Item:
    if not isinstance(value, Mapping):
        raise ValueError(f"has {_kind(value)} in the place of a span; a span is {{start, end, label}}")
    return (_offset(value, "start"), _offset(value, "end")), _label(value.get("label"))


def _offset(span: Mapping[str, Any], name: str) -> int:
    value = span.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"has a span without a whole number as its {name}; it counts characters of the text, from 0")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text" if value.strip() else "an empty text"
    return "null" if value is None else "a number"
