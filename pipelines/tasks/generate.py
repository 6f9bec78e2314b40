"""Generation: free text after a prompt, chat messages or a column of token ids, one request a row.

A prompt is encoded as `AutoTokenizer(text)` does, a rendered chat template without adding special tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pyarrow as pa

from actors.work import Asked
from models.engine.rules.table import PARAMETERS
from models.engine.scheduling.request import SamplingParams, TokenLogprobs
from models.errors import ParameterError
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.kinds import EMPTY_TEXT, INVALID_VALUE, MISSING_VALUE, NULL_VALUE
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.compared import Compared, Said
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Row, RowEncoder
from pipelines.task_base.task import Counted, Task
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, check_head, each, protected, too_long
from pipelines.tasks.messages import MessageTemplates

GENERATE_UNIT_ROWS = 256

_CHOICE = pa.struct([pa.field("token_id", pa.int64()), pa.field("logprob", pa.float32())])
LOGPROBS = pa.list_(
    pa.struct(
        [
            pa.field("token_id", pa.int64()),
            pa.field("logprob", pa.float32()),
            pa.field("rank", pa.int64()),
            pa.field("top", pa.list_(_CHOICE)),
        ]
    )
)

RECORDED_RULES = ("min_tokens",)
"""Parameters of rules that are in every run's record. The others are in it where they ask for
something: runs that were begun before there was such a rule go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateTask(Task):
    """Free text from a causal model; exactly one of `prompt`, `messages` and `prompt_token_ids` (a column) is set.

    With `strip` the text of a result has no white space at its ends (as Python's `str.strip` has it), its tokens and log
    probabilities stay.
    """

    kind: ClassVar = "generate"
    template_keys: ClassVar = ("prompt", "messages")
    generates: ClassVar = True
    unit_rows: ClassVar = GENERATE_UNIT_ROWS
    counted: ClassVar = Counted(
        title="How texts ended",
        columns=("finish_reason",),
        labels_in=lambda row: [(str(row["finish_reason"]), None)],
    )
    compared: ClassVar = Compared(what="texts", columns=("text",), said_in=lambda row: Said(answers=[row["text"]]))

    prompt: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    prompt_token_ids: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(temperature=0.0))
    allow_special_tokens: bool = False
    strip: bool = False

    @property
    def uses_chat_template(self) -> bool:
        return self.messages is not None

    def columns_named(self) -> Iterator[tuple[str, str]]:
        if self.prompt_token_ids is not None:
            yield "task.prompt_token_ids", self.prompt_token_ids

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        check_head(facts, "causal", "task.kind", "generate")
        check_sampling(self.sampling, tokenizer, facts)
        if self.prompt_token_ids is not None:
            return TokenIdsEncoder(self, self.prompt_token_ids, facts)
        return PromptEncoder(self, tokenizer, facts)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        del facts
        text = pa.field("text", pa.string())
        return [text] if self.sampling.logprobs is None else [text, pa.field("logprobs", LOGPROBS)]

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        del facts
        texts = (result.text for result in rows.generated)
        text = pa.array([text.strip() if self.strip else text for text in texts], pa.string())
        if self.sampling.logprobs is None:
            return [text]
        logprobs = [[_token(token) for token in result.logprobs or ()] for result in rows.generated]
        return [text, pa.array(logprobs, LOGPROBS)]

    def finish_reasons(self, rows: AnsweredRows) -> "pa.Array[Any]":
        return pa.array([result.finish_reason for result in rows.generated], pa.string())

    def recorded(self) -> dict[str, Any]:
        values = super(GenerateTask, self).recorded()
        if not self.strip:  # runs that were begun before there was this key go on
            del values["strip"]
        later = (each for name, each in PARAMETERS.items() if name not in RECORDED_RULES)
        asked = self.sampling.values()
        unasked = {each.name: None for each in later if asked[each.name] == each.default}
        return values | {"sampling": asked | unasked}


def _token(token: TokenLogprobs) -> dict[str, Any]:
    top = [{"token_id": token_id, "logprob": logprob} for token_id, logprob in token.top.items()]
    return {"token_id": token.token_id, "logprob": token.logprob, "rank": token.rank, "top": top}


class PromptEncoder(TemplateEncoder):
    """Rows to the prompts of a `GenerateTask` that has a `prompt` or `messages`.

    Raises:
        TaskError: a template cannot be used, there is no chat template for messages, or `max_tokens` leaves no room for a prompt.
    """

    def __init__(self, task: GenerateTask, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._task = task
        self._tokenizer = tokenizer
        self.asked = _asked(task)
        self._limit = prompt_limit(task, facts)
        self._render = self._renderer()
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
        return EncodedRow.of_tokens(checked_length(token_ids, self._limit, self._task))

    def _renderer(self) -> Callable[[Row], str]:
        if self._task.prompt is not None:
            return self.template(self._task.prompt, "task.prompt").render
        messages, variables = self._task.messages or (), self._task.chat_template_kwargs
        templates = MessageTemplates(messages, variables, self._tokenizer, self.template)
        return lambda row: templates.prompt(templates.of(row))


class TokenIdsEncoder(RowEncoder):
    """Rows that come tokenized: a column of lists of token ids.

    Raises:
        TaskError: `max_tokens` leaves no room for a prompt.
    """

    def __init__(self, task: GenerateTask, column: str, facts: TaskFacts) -> None:
        self._task = task
        self._column = column
        self.asked = _asked(task)
        self._vocab_size = facts.model.vocab_size
        self._limit = prompt_limit(task, facts)
        self.columns = self.required_columns = frozenset({column})

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        del pace  # there is nothing of a stranger's to run
        return each(self._checked, rows)

    def _checked(self, row: Row) -> EncodedRow:
        token_ids = self._token_ids(row)
        if not token_ids:
            raise RowError(EMPTY_TEXT, f"column {self._column!r} is an empty list; a prompt needs a token")
        for token_id in token_ids:
            self._check(token_id)
        return EncodedRow.of_tokens(checked_length(token_ids, self._limit, self._task))

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


def _asked(task: GenerateTask) -> Asked:
    """A row's draws are keyed by the row, so the sampling parameters carry no seed."""
    return Asked(sampling=replace(task.sampling, seed=None))


def check_sampling(sampling: SamplingParams, tokenizer: Tokenizer, facts: TaskFacts) -> None:
    """Compares what is asked of the next tokens with the tokens there are.

    Raises:
        TaskError: a token is not in the vocabulary, or a text has none.
    """
    try:
        encoded = (tokenizer.encode(text, add_special_tokens=False) for text in sampling.texts_of_rules)
        sampling.with_tokens(encoded).check_vocabulary(facts.model.vocab_size)
    except ParameterError as error:
        raise TaskError(f"task.sampling.{error.name}{error.at}", error.text) from error


def prompt_limit(task: GenerateTask, facts: TaskFacts) -> int:
    """How many tokens a prompt may have.

    Raises:
        TaskError: max_tokens leaves room for none.
    """
    limit = facts.model.max_model_len - task.sampling.max_tokens
    if limit < 1:
        raise TaskError(
            "task.sampling.max_tokens",
            f"was {task.sampling.max_tokens}; it must be less than max_model_len, which is {facts.model.max_model_len}",
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
