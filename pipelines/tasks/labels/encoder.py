"""Rows to prompts after which a causal model's answer is one of the task's labels.

A text in windows is cut at the text's own tokens, and each part asked about in a prompt of its own. Examples stand before a
prompt as long as they fit. What a `calibrate: prior` is found with is the same prompts of texts that say nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.work import Asked
from models.errors import RequestError, TemplateError
from models.tasks.calibration import CONTENT_FREE
from models.tasks.examples import SimilarTexts
from models.tasks.label_prompt import LabelPrompt, described
from models.tasks.label_tokens import LabelTokens, Scored, fault_of_labels, prompt_tokens
from models.tasks.windows import cut_windows
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.kinds import EMPTY_TEXT, INVALID_VALUE
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Piece, Row
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, protected, too_long
from pipelines.tasks.labels.keys import LabelKeys
from pipelines.tasks.labels.prompts import AskedText, ChatPrompts, LabelPrompts, OwnPrompts, Shot, TextPrompts
from pipelines.tasks.windows import REMEDY, merged_window_size

_PROMPT_REMEDY = "shorten the row, or raise engine.max_model_len"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A row with what it makes of the prompt, its examples, the most alike first, and the prompt for its whole text."""

    row: Row
    content: Any
    shots: Sequence[Shot[Any]]
    prompt: str


class LabelEncoder(TemplateEncoder):
    """Encodes the rows of a task; `asked` has the labels' tokens, but for rows after which they are others.

    Raises:
        TaskError: templates, labels, examples or windows cannot be used.
    """

    def __init__(self, task: LabelKeys, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._task, self._tokenizer = task, tokenizer
        self._prompts: LabelPrompts[Any] = self._made_prompts()
        self._label_tokens = LabelTokens.asked(
            tokenizer,
            task.written,
            label_stop=task.label_stop,
            eos_token_ids=facts.model.eos_token_ids,
            is_chat=not self._prompts.adds_special_tokens,
        )
        self._sample = self._label_tokens.always_behind(self._prompts.sample)
        _check_labels(task, self._sample.labels)
        self.asked = Asked(labels=self._sample.labels)
        self._size = merged_window_size(task.windows, task.window, task.stride, facts)
        self._max_model_len = facts.model.max_model_len
        self._shots = [self._shot(number, example) for number, example in enumerate(task.examples)]
        self._similar = SimilarTexts([self._prompts.words(shot.content) for shot in self._shots])
        if task.calibrate == "prior":
            self.trial = tuple(map(self._content_free, CONTENT_FREE))

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        encoding = TextEncoding(
            render=self._ask,
            encode=lambda asked: self._encode([one.prompt for one in asked]),
            check=lambda asked, token_ids: self._checked(asked, token_ids, pace),
            num_chars=lambda asked: len(asked.prompt),
        )
        return encoding.of_rows(rows, pace)

    def _made_prompts(self) -> LabelPrompts[Any]:
        task = self._task
        if task.prompt is not None:
            return OwnPrompts(task.prompt, self.template)
        if task.messages is not None:
            return ChatPrompts(task.messages, task.chat_template_kwargs, self._tokenizer, self.template)
        assert task.text is not None, "a task of labels has a text, a prompt or messages"
        prompt = LabelPrompt(descriptions=described(task.descriptions, task.label_texts))
        return TextPrompts(prompt, task.text, task.question, self.template)

    def _shown(self, row: Row) -> Row:
        return row if self._task.allow_special_tokens else protected(row, self._tokenizer)

    def _shot(self, number: int, example: Mapping[str, str]) -> Shot[Any]:
        """Raises TaskError if a template fails on the example."""
        try:
            content = self._prompts.of_example(self._shown(example))
        except RowError as error:
            raise TaskError(f"task.examples[{number}]", str(error)) from error
        return Shot(content=content, label=self._task.text_of(example["label"]))

    def _ask(self, row: Row) -> _Asked:
        content = self._prompts.of(self._shown(row))
        if not self._prompts.words(content):
            raise RowError(EMPTY_TEXT, "the text is empty")
        return self._asked(row, content)

    def _asked(self, row: Row, content: Any) -> _Asked:
        shots = self._chosen(content)
        return _Asked(row=row, content=content, shots=shots, prompt=self._prompt(content, shots))

    def _chosen(self, content: Any) -> Sequence[Shot[Any]]:
        """The examples of a row, those that are left out last first."""
        if self._task.select == "first" or not self._shots:
            return self._shots[: self._task.max_examples]
        chosen = self._similar.most_like(self._prompts.words(content), self._task.max_examples)
        return [self._shots[number] for number in chosen]

    def _prompt(self, content: Any, shots: Sequence[Shot[Any]]) -> str:
        """What is most alike stands nearest to the text."""
        return self._prompts.text(content, shots if self._task.select == "first" else shots[::-1])

    def _encode(self, prompts: Sequence[str]) -> list[list[int]]:
        if self._prompts.adds_special_tokens:
            return prompt_tokens(self._tokenizer, prompts)
        return self._tokenizer.encode_batch(prompts, add_special_tokens=False)

    def _scored(self, prompt: str, token_ids: Sequence[int]) -> Scored:
        if self._prompts.ends_alike:
            return self._sample.behind(token_ids)
        if not token_ids:
            raise RowError(EMPTY_TEXT, "the prompt has no tokens")
        return self._label_tokens.behind(prompt, token_ids)

    def _checked(self, asked: _Asked, token_ids: list[int], pace: Pace) -> EncodedRow:
        if not self._prompts.ends_alike:
            pace.at_more_text(len(asked.prompt) * (1 + len(self._task.labels)))
        scored = self._scored(asked.prompt, token_ids)
        if asked.shots and not self._fits(scored):
            scored = self._with_fewer_shots(asked, pace)
        if self._fits(scored):
            return EncodedRow(pieces=(self._piece(scored),))
        if self._size is None:
            longest = _longest(scored)
            of_text = self._task.text is not None
            what = "the text with its question has" if of_text else "the prompt has"
            raise too_long(
                f"{what} {len(scored.prompt)} tokens and the longest label {longest}",
                self._limit(scored) + longest,
                REMEDY if of_text else _PROMPT_REMEDY,
            )
        return self._windowed(asked, scored, self._size.stride, pace)

    def _with_fewer_shots(self, asked: _Asked, pace: Pace) -> Scored:
        """The prompt with as many of its examples as fit, without any if none does."""
        best = self._with_shots(asked, 0, pace)
        if not self._fits(best):
            return best
        fitting, too_many = 0, len(asked.shots)
        while too_many - fitting > 1:
            middle = (fitting + too_many) // 2
            found = self._with_shots(asked, middle, pace)
            if self._fits(found):
                fitting, best = middle, found
            else:
                too_many = middle
        return best

    def _with_shots(self, asked: _Asked, num_shots: int, pace: Pace) -> Scored:
        prompt = self._prompt(asked.content, asked.shots[:num_shots])
        pace.at_more_text(len(prompt))
        return self._scored(prompt, self._encode([prompt])[0])

    def _fits(self, scored: Scored) -> bool:
        return len(scored.prompt) <= self._limit(scored)

    def _limit(self, scored: Scored) -> int:
        """How many tokens the prompt may have."""
        most = self._max_model_len - _longest(scored)
        return most if self._size is None else min(most, self._size.window)

    def _piece(self, scored: Scored) -> Piece:
        token_ids = np.array(scored.prompt, np.int32)
        if scored.labels == self.asked.labels:
            return Piece(token_ids=token_ids)
        if fault := fault_of_labels(self._task.labels, scored.labels):
            raise RowError(
                INVALID_VALUE, f"behind this row's prompt {fault}; end the prompt with a space or a line break"
            )
        return Piece(token_ids=token_ids, labels=scored.labels)

    def _windowed(self, asked: _Asked, whole: Scored, overlap: int, pace: Pace) -> EncodedRow:
        assert isinstance(self._prompts, TextPrompts), "windows are of a text"
        text = self._prompts.text_template.render(asked.row)
        offsets = self._text_offsets(text)
        limit = self._limit(whole)
        shots, room = self._shots_beside(asked, limit, overlap)
        while room > overlap:
            windows = cut_windows(len(offsets), room=room, overlap=overlap)
            parts = [text[offsets[window.start][0] : offsets[window.end - 1][1]] for window in windows]
            pace.at_more_text(len(parts) * len(asked.prompt))
            prompts = [self._prompt(self._part(part, asked), shots) for part in parts]
            scored = [self._scored(*pair) for pair in zip(prompts, self._encode(prompts), strict=True)]
            excess = max(len(one.prompt) for one in scored) - limit
            if excess <= 0:
                return EncodedRow(pieces=tuple(map(self._piece, scored)))
            room -= excess  # a part can have a token more beside its neighbours in the prompt than in the text
        raise too_long(
            f"the question and the labels leave {max(room, 0)} tokens of a window to the text, which is not more than the stride",
            limit,
            "shorten the question, raise task.window or lower task.stride",
        )

    def _shots_beside(self, asked: _Asked, limit: int, overlap: int) -> tuple[Sequence[Shot[Any]], int]:
        """The examples that leave more than the overlap of a window to the text, and how many tokens that is."""
        shots = asked.shots
        while True:
            around = self._prompt(AskedText(text="", question=asked.content.question), shots)
            room = limit - len(self._encode([around])[0])
            if room > overlap or not shots:
                return shots, room
            shots = shots[:-1]

    def _part(self, part: str, asked: _Asked) -> AskedText:
        shown = part if self._task.allow_special_tokens else self._tokenizer.protect(part)
        return AskedText(text=shown, question=asked.content.question)

    def _text_offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters of each token of the text on its own [T]."""
        encoding = self._tokenizer.encode_with_offsets([text])[0]
        pairs = zip(encoding.offsets, encoding.sequence_ids, strict=True)
        return [offset for offset, sequence in pairs if sequence is not None]

    def _content_free(self, text: str) -> Piece:
        """The prompt of a row whose every column is this text.

        Raises:
            TaskError: no prompt can be made of it.
        """
        row = dict.fromkeys(self.columns, text)
        try:
            asked = self._asked(row, self._prompts.of(row))
            scored = self._scored(asked.prompt, self._encode([asked.prompt])[0])
        except (RowError, RequestError, TemplateError) as error:
            raise _no_trial(text, error) from error
        if len(scored.prompt) > self._limit(scored):
            raise _no_trial(text, too_long(f"it has {len(scored.prompt)} tokens", self._limit(scored), _PROMPT_REMEDY))
        return self._piece(scored)


def _longest(scored: Scored) -> int:
    return max(map(len, scored.labels))


def _no_trial(text: str, error: Exception) -> TaskError:
    what = f"prior asks about a row whose every column is {text!r}, of which no prompt can be made: {error}"
    return TaskError("task.calibrate", f"{what}; use calibrate: batch, or templates that take any text")


def _check_labels(task: LabelKeys, label_ids: Sequence[tuple[int, ...]]) -> None:
    fault = fault_of_labels(task.labels, tuple(label_ids))
    if fault is not None:
        raise TaskError("task.labels", f"was {list(task.labels)}; {fault}")
