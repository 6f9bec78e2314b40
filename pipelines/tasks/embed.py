"""Embedding: a text -> one vector, as `models.tasks.embedding` says what a checkpoint makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from actors.work import Asked
from models.checkpoint.files import sentence_files
from models.config.model_config import ModelConfig
from models.errors import ConfigError, ParameterError, RequestError
from models.tasks.embedding import AskedPooling, EmbeddingConfig, EmbedOptions, embedding_of
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.kinds import EMPTY_TEXT
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.change import Change, by_defaults
from pipelines.task_base.compared import Compared, Said
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Row, RowEncoder
from pipelines.task_base.task import Task
from pipelines.task_base.yaml import Count, TaskYaml, Text, wrong
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, too_long

TOO_LONG_REMEDY = "shorten it, or raise engine.max_model_len"


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedTask(Task):
    """A vector for each text.

    `pooling` "auto" and `normalize` None are as the checkpoint has it; `dimensions` keeps the first of each vector. At most one of
    `prompt_name`, `prompt` and `instruction` says what stands before every text; none of them: what the checkpoint has by default.
    """

    kind: ClassVar = "embed"
    template_keys: ClassVar = ("text",)
    compared: ClassVar = Compared(
        what="vectors", columns=("embedding",), said_in=lambda row: Said(numbers=row["embedding"])
    )

    text: str
    pooling: AskedPooling = "auto"
    dimensions: int | None = None
    normalize: bool | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    instruction: str | None = None

    def read_own(self, folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> EmbeddingConfig:
        del tokenizer
        try:
            return embedding_of(folder, config)
        except ConfigError as error:
            raise TaskError("model.path", str(error)) from error

    def own_files(self, folder: Path) -> Sequence[str]:
        return sentence_files(folder)

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        return EmbedEncoder(self, tokenizer, facts)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        return [pa.field("embedding", pa.list_(pa.float32(), self._size(facts)))]

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        values = np.concatenate([np.empty(0, np.float32), *rows.logits])  # [N * D]
        return [pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float32()), self._size(facts))]

    def _size(self, facts: TaskFacts) -> int:
        return _embedding(facts).size if self.dimensions is None else self.dimensions


class EmbedEncoder(TemplateEncoder):
    """Rows to texts behind the task's prompt, special tokens included.

    Raises:
        TaskError: the template, the prompt or the dimensions cannot be used.
    """

    def __init__(self, task: EmbedTask, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._tokenizer = tokenizer
        self._embedding = embedding = _embedding(facts)
        self._prompt = _prompt(embedding, task)
        self._limit = embedding.max_len(facts.model.max_model_len)
        options = EmbedOptions(
            pooling=task.pooling,
            normalize=task.normalize,
            dimensions=task.dimensions,
            num_skipped=embedding.num_skipped(tokenizer, self._prompt),
        )
        _check_dimensions(embedding, options)
        self.asked = Asked(embed=options)
        self._encoding = TextEncoding(
            render=self.template(task.text, "task.text").render, encode=self._encode, check=self._checked, num_chars=len
        )

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        return self._encoding.of_rows(rows, pace)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self._embedding.token_ids(self._tokenizer, texts, prompt=self._prompt)

    def _checked(self, text: str, token_ids: list[int]) -> EncodedRow:
        del text
        assert self.asked.embed is not None, "it is set when this is made"
        if len(token_ids) <= self.asked.embed.num_skipped:
            raise RowError(EMPTY_TEXT, "the text has no tokens to make a vector of")
        if len(token_ids) > self._limit:
            raise too_long(f"the text with its prompt has {len(token_ids)} tokens", self._limit, TOO_LONG_REMEDY)
        return EncodedRow.of_tokens(token_ids)


def _embedding(facts: TaskFacts) -> EmbeddingConfig:
    found = facts.own
    assert isinstance(found, EmbeddingConfig), "EmbedTask reads it"
    return found


def _prompt(embedding: EmbeddingConfig, task: EmbedTask) -> str:
    try:
        return embedding.prompt(name=task.prompt_name, text=task.prompt, instruction=task.instruction)
    except RequestError as error:
        key = "instruction" if task.instruction is not None else "prompt_name"
        raise TaskError(f"task.{key}", str(error)) from error


def _check_dimensions(embedding: EmbeddingConfig, options: EmbedOptions) -> None:
    try:
        embedding.check(options)
    except ParameterError as error:
        raise TaskError(f"task.{error.name}", error.text) from error


class EmbedYaml(TaskYaml):
    """`{kind: embed}`."""

    changeable: ClassVar[Mapping[str, Change]] = {"text": by_defaults}

    kind: Literal["embed"] = Field(description="embed")
    text: Text = Field(description='a template over the row\'s columns, such as "{{ body }}"')
    pooling: AskedPooling = Field("auto", description="auto (as the checkpoint has it), last, mean or cls")
    dimensions: Count | None = Field(None, description="a whole number of a vector's numbers that are kept, at least 1")
    normalize: bool | None = Field(
        None, description="true or false: whether vectors have length 1; default: as the checkpoint has it"
    )
    prompt_name: Text | None = Field(None, description="the name of one of the checkpoint's prompts")
    prompt: str | None = Field(None, description="what stands before every text")
    instruction: Text | None = Field(None, description="an instruction, in the form that the checkpoint has for one")

    @model_validator(mode="after")
    def _one_prompt(self) -> "EmbedYaml":
        given = [key for key in ("prompt_name", "prompt", "instruction") if getattr(self, key) is not None]
        if len(given) > 1:
            raise wrong(given[1], f"stands beside {given[0]}; give at most one of prompt_name, prompt and instruction")
        return self

    def to_task(self) -> EmbedTask:
        return EmbedTask(**self.model_dump(exclude={"kind"}))

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        del values
        return EmbedTask
