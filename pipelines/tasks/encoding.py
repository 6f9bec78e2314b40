"""What several kinds of task do to turn rows into model requests.

A task's encoder takes the rows of a unit as column name to Python value, renders its templates and tokenizes many texts in one call.
What is wrong with one row stands, from there on, in its place as a `RowError`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from models.config.model_config import NO_HEAD
from models.config.types import Head
from models.errors import RequestError, TemplateError
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.formats.row_mapping import ProtectedRow
from pipelines.kinds import INVALID_VALUE, TEMPLATE_ERROR, TOKENIZER_ERROR, TOO_LONG
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Row, RowEncoder
from pipelines.templates.templates import RowTemplate

In = TypeVar("In")
Out = TypeVar("Out")


def check_head(facts: TaskFacts, head: Head, place: str, what: str) -> None:
    """Raises TaskError, of the key `place`, if the checkpoint has no such head; `what` says what needs it."""
    if facts.model.head == "embedding":
        raise TaskError("model.path", f"{what} needs a checkpoint with a {head} head; this one has none: {NO_HEAD}")
    if facts.model.head != head:
        raise TaskError(place, f"{what} needs a checkpoint with a {head} head; this one has a {facts.model.head} head")


class TemplateEncoder(RowEncoder):
    """An encoder with templates, which say what columns it reads."""

    def template(self, source: str, place: str) -> RowTemplate:
        """A template over a row, whose columns are read from now on.

        Raises:
            TaskError: it cannot be used.
        """
        template = RowTemplate(source, place=place)
        self.columns |= template.columns
        self.required_columns |= template.required_columns
        self.reads_all |= template.reads_all
        return template


def each(function: Callable[[In], Out], items: Sequence[In | RowError]) -> list[Out | RowError]:
    """`function` of every item, with the `RowError` it raises, or the item already was, in that place."""
    return [item if isinstance(item, RowError) else _attempt(function, item) for item in items]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextEncoding(Generic[In, Out]):
    """The three parts of a task that has texts: `render` makes the text of a row (or what has a text in it), `encode` the tokens of
    many such texts in one call, `check` the requests of a text and its tokens. `num_chars` is a text's length."""

    render: Callable[[Row], In]
    encode: Callable[[list[In]], Sequence[Out]]
    check: Callable[[In, Out], EncodedRow]
    num_chars: Callable[[In], int]

    def of_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        """A unit's rows: all are rendered, then tokenized in slices. What is wrong with a row stands in its place."""
        done: dict[int, EncodedRow | RowError] = {}
        texts: dict[int, In] = {}
        for position, row in enumerate(rows):
            pace.at_template(position)
            text = row if isinstance(row, RowError) else _attempt(self.render, row)
            if isinstance(text, RowError):
                done[position] = text
            else:
                texts[position] = text
        for positions in self._slices(texts, pace.slice_chars):
            some = {position: texts[position] for position in positions}
            for position, tokens in self._tokens(some, pace).items():
                pace.at_text(position, self.num_chars(some[position]))
                done[position] = self._checked(some[position], tokens)
        return [done[position] for position in range(len(rows))]

    def _slices(self, texts: Mapping[int, In], slice_chars: int) -> Iterator[list[int]]:
        """Positions of neighbouring texts with at most `slice_chars` characters together, or of
        one that is longer."""
        positions: list[int] = []
        room = slice_chars
        for position, text in texts.items():
            if positions and self.num_chars(text) > room:
                yield positions
                positions, room = [], slice_chars
            positions.append(position)
            room -= self.num_chars(text)
        if positions:
            yield positions

    def _tokens(self, texts: Mapping[int, In], pace: Pace) -> dict[int, Out | RowError]:
        pace.at_slice(list(texts), sum(map(self.num_chars, texts.values())))
        try:
            return dict(zip(texts, self.encode(list(texts.values())), strict=True))
        except Exception as error:
            if not (isinstance(error, RequestError) or _is_tokenizers(error)):
                raise
            return dict(zip(texts, each(self._tokens_alone, list(texts.values())), strict=True))

    def _tokens_alone(self, text: In) -> Out:
        """Raises RowError if it is this text that cannot be tokenized."""
        try:
            return self.encode([text])[0]
        except Exception as error:
            if not _is_tokenizers(error):
                raise
            raise RowError(TOKENIZER_ERROR, f"the checkpoint's tokenizer failed on this row's text: {error}") from error

    def _checked(self, text: In, tokens: Out | RowError) -> EncodedRow | RowError:
        return tokens if isinstance(tokens, RowError) else _attempt(lambda found: self.check(text, found), tokens)


def _is_tokenizers(error: Exception) -> bool:
    """Whether it is what the tokenizers library raises of its own, such as for a word that a vocabulary has no token for."""
    return type(error) is Exception


def _attempt(function: Callable[[In], Out], item: In) -> Out | RowError:
    try:
        return function(item)
    except RowError as error:
        return error
    except TemplateError as error:
        return RowError(TEMPLATE_ERROR, str(error))
    except RequestError as error:
        return RowError(INVALID_VALUE, str(error))


def protected(row: Row, tokenizer: Tokenizer) -> Row:
    """The row with every string in it protected: special tokens that it spells stay text."""
    protect = tokenizer.protect
    return ProtectedRow(row, protect=protect, protect_value=lambda value: _protected_value(value, protect))


def _protected_value(value: Any, protect: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return protect(value)
    if isinstance(value, list | tuple):
        return [_protected_value(item, protect) for item in value]
    if isinstance(value, dict):
        return {_protected_value(key, protect): _protected_value(item, protect) for key, item in value.items()}
    return value


def too_long(what: str, limit: int, remedy: str) -> RowError:
    """The error of a row that needs more tokens than there are."""
    return RowError(TOO_LONG, f"{what}; at most {limit} are possible: {remedy}")
