"""Generation: a prompt, chat messages or a column of token ids -> one request a row.

A prompt is encoded as `AutoTokenizer(text)` does, a rendered chat template without adding special tokens. The strings of messages,
roles and nested content parts included, are templates each.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.text.chat_content import ChatContent
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.job import GenerateTask
from pipelines.kinds import EMPTY_TEXT, INVALID_VALUE, MISSING_VALUE, NULL_VALUE
from pipelines.tasks.encoding import EncodedRow, Row, TextEncoding, each, of_tokens, protected, too_long
from pipelines.tasks.facts import ModelFacts
from pipelines.tasks.pace import Pace
from pipelines.templates.templates import RowTemplate

# What chat templates get in another way.
_RESERVED = {"messages": "write task.messages", "now": "the date that templates see is the key date of the job"}
# Where a prompt ends, which does not change how messages are written.
_OF_THE_END = ("add_generation_prompt", "continue_final_message")


class PromptEncoder:
    """Rows to the prompts of a `GenerateTask` that has a `prompt` or `messages`.

    Raises:
        TaskError: a template cannot be used, there is no chat template for messages, or `max_tokens` leaves no room for a prompt.
    """

    def __init__(self, task: GenerateTask, tokenizer: Tokenizer, facts: ModelFacts) -> None:
        self._task = task
        self._tokenizer = tokenizer
        self._limit = prompt_limit(task, facts)
        self._templates: list[RowTemplate] = []
        self._render = (
            self._chat_renderer() if task.prompt is None else self._template(task.prompt, "task.prompt").render
        )
        self.columns = frozenset[str]().union(*(template.columns for template in self._templates))
        self.required_columns = frozenset[str]().union(*(template.required_columns for template in self._templates))
        self.reads_all = any(template.reads_all for template in self._templates)
        self._encoding = TextEncoding(render=self._rendered, encode=self._encode, check=self._checked, num_chars=len)

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        return self._encoding.of_rows(rows, pace)

    def _rendered(self, row: Row) -> str:
        return self._render(row if self._task.allow_special_tokens else protected(row, self._tokenizer))

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self._tokenizer.encode_batch(texts, add_special_tokens=self._task.prompt is not None)

    def _checked(self, text: str, token_ids: list[int]) -> EncodedRow:
        del text
        if not token_ids:
            raise RowError(EMPTY_TEXT, "the prompt has no tokens")
        return of_tokens(checked_length(token_ids, self._limit, self._task))

    def _chat_renderer(self) -> Callable[[Row], str]:
        if self._tokenizer.chat_template is None:
            raise TaskError("task.messages", "the checkpoint has no chat template; write a prompt instead")
        for name in _RESERVED.keys() & self._task.chat_template_kwargs.keys():
            raise TaskError(f"task.chat_template_kwargs.{name}", f"is no variable of a template: {_RESERVED[name]}")
        render_messages = self._renderer(self._task.messages, "task.messages")
        content = self._content()
        return lambda row: self._tokenizer.render_chat(
            content.fit(render_messages(row)), **self._task.chat_template_kwargs
        )

    def _content(self) -> ChatContent:
        """The form of content that the chat template takes, which the task's messages have or can be given.

        Raises:
            TaskError: what a message says would be lost.
        """
        kwargs = {name: value for name, value in self._task.chat_template_kwargs.items() if name not in _OF_THE_END}
        content = self._tokenizer.chat_content(**kwargs)
        for index, message in enumerate(self._task.messages or ()):
            if fault := content.fault(message):
                raise TaskError(f"task.messages[{index}].content", fault)
        return content

    def _renderer(self, value: Any, place: str) -> Callable[[Row], Any]:
        """A function from a row to `value` with every string in it rendered."""
        if isinstance(value, str):
            return self._template(value, place).render
        if isinstance(value, Mapping):
            fields = {name: self._renderer(item, f"{place}.{name}") for name, item in value.items()}
            return lambda row: {name: render(row) for name, render in fields.items()}
        if isinstance(value, list | tuple):
            items = [self._renderer(item, f"{place}[{index}]") for index, item in enumerate(value)]
            return lambda row: [render(row) for render in items]
        return lambda _: value

    def _template(self, source: str, place: str) -> RowTemplate:
        self._templates.append(RowTemplate(source, place=place))
        return self._templates[-1]


class TokenIdsEncoder:
    """Rows that come tokenized: a column of lists of token ids.

    Raises:
        TaskError: `max_tokens` leaves no room for a prompt.
    """

    def __init__(self, task: GenerateTask, column: str, facts: ModelFacts) -> None:
        self._task = task
        self._column = column
        self._vocab_size = facts.vocab_size
        self._limit = prompt_limit(task, facts)
        self.columns = self.required_columns = frozenset({column})
        self.reads_all = False

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        del pace  # there is nothing of a stranger's to run
        return each(self._checked, rows)

    def _checked(self, row: Row) -> EncodedRow:
        token_ids = self._token_ids(row)
        if not token_ids:
            raise RowError(EMPTY_TEXT, f"column {self._column!r} is an empty list; a prompt needs a token")
        for token_id in token_ids:
            self._check(token_id)
        return of_tokens(checked_length(token_ids, self._limit, self._task))

    def _token_ids(self, row: Row) -> list[Any]:
        if self._column not in row:
            raise RowError(MISSING_VALUE, f"task.prompt_token_ids: {self._column!r} is no column of this row")
        value = row[self._column]
        if value is None:
            raise RowError(NULL_VALUE, f"task.prompt_token_ids: {self._column!r} is null")
        if not isinstance(value, list):
            raise RowError(
                INVALID_VALUE, f"column {self._column!r} holds a {type(value).__name__}, not a list of token ids"
            )
        return value

    def _check(self, token_id: object) -> None:
        if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < self._vocab_size:
            allowed = f"a token id is a whole number from 0 to {self._vocab_size - 1}"
            raise RowError(INVALID_VALUE, f"column {self._column!r} holds {token_id!r}; {allowed}")


def prompt_limit(task: GenerateTask, facts: ModelFacts) -> int:
    """How many tokens a prompt may have.

    Raises:
        TaskError: max_tokens leaves room for none.
    """
    limit = facts.max_model_len - task.sampling.max_tokens
    if limit < 1:
        raise TaskError(
            "task.sampling.max_tokens",
            f"was {task.sampling.max_tokens}; it must be less than max_model_len, which is {facts.max_model_len}",
        )
    return limit


def checked_length(token_ids: Sequence[int], limit: int, task: GenerateTask) -> Sequence[int]:
    """The token ids.

    Raises:
        RowError: there are more than `limit`.
    """
    if len(token_ids) > limit:
        max_tokens = task.sampling.max_tokens
        raise too_long(
            f"the prompt has {len(token_ids)} tokens and max_tokens is {max_tokens}, together {len(token_ids) + max_tokens}",
            limit + max_tokens,
            "shorten the row, lower task.sampling.max_tokens or raise engine.max_model_len",
        )
    return token_ids
