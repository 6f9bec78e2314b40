"""Reranking: a query and a document -> how relevant it is, as `models.tasks.rerank` says how a checkpoint is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from actors.work import Asked
from models.checkpoint.files import sentence_files
from models.config.model_config import ModelConfig
from models.errors import ConfigError, RequestError
from models.tasks.rerank import AskedForm, Pair, Reranking, reranking_of
from models.text.tokenizer import Tokenizer
from pipelines.errors import RowError, TaskError
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.change import Change, by_defaults
from pipelines.task_base.compared import Compared, Said
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.pace import Pace
from pipelines.task_base.requests import EncodedRow, Row, RowEncoder
from pipelines.task_base.task import Task
from pipelines.task_base.yaml import TaskYaml, Text
from pipelines.tasks.encoding import TemplateEncoder, TextEncoding, too_long

_REMEDY = "shorten the document, or raise engine.max_model_len"


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankTask(Task):
    """The relevance of `document` to `query`: from 0 to 1, or the head's own value where the checkpoint says so.

    `instruction` None is the checkpoint's own; `form` is how the checkpoint is asked, where its files do not tell.
    """

    kind: ClassVar = "rerank"
    template_keys: ClassVar = ("query", "document")
    compared: ClassVar = Compared(
        what="scores", columns=("score",), said_in=lambda row: Said(numbers={"score": row["score"]})
    )

    query: str
    document: str
    instruction: str | None = None
    form: AskedForm = "auto"

    def read_own(self, folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> Reranking:
        try:
            return reranking_of(folder, config, tokenizer, self.form)
        except ConfigError as error:
            raise TaskError("model.path", str(error)) from error

    def own_files(self, folder: Path) -> Sequence[str]:
        return sentence_files(folder)

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        return PairEncoder(self, tokenizer, facts)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        del facts
        return [pa.field("score", pa.float32())]

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        reranking = _reranking(facts)
        values = np.stack(rows.logits) if rows.num_rows else np.empty((0, 2), np.float32)  # [N, 2] or [N, 1]
        return [pa.array(reranking.relevance(values), pa.float32())]

    def why_no_confidence(self) -> str:
        return "the score of rerank says how relevant a document is, and not how sure the model is of that"


class PairEncoder(TemplateEncoder):
    """Rows to pairs of a query and a document, in the checkpoint's form.

    Raises:
        TaskError: a template or the instruction cannot be used.
    """

    def __init__(self, task: RerankTask, tokenizer: Tokenizer, facts: TaskFacts) -> None:
        self._tokenizer, self._instruction = tokenizer, task.instruction
        self._reranking = reranking = _reranking(facts)
        try:
            reranking.check_instruction(task.instruction)
        except RequestError as error:
            raise TaskError("task.instruction", str(error)) from error
        self._limit = reranking.max_len(facts.model.max_model_len)
        self._query, self._document = (
            self.template(task.query, "task.query"),
            self.template(task.document, "task.document"),
        )
        self.asked = Asked(labels=reranking.label_ids)
        self._encoding = TextEncoding(render=self._pair, encode=self._encode, check=self._checked, num_chars=_num_chars)

    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        return self._encoding.of_rows(rows, pace)

    def _pair(self, row: Row) -> Pair:
        return Pair(query=self._query.render(row), document=self._document.render(row))

    def _encode(self, pairs: list[Pair]) -> list[list[int]]:
        return self._reranking.token_ids(self._tokenizer, pairs, instruction=self._instruction)

    def _checked(self, pair: Pair, token_ids: list[int]) -> EncodedRow:
        del pair
        if len(token_ids) > self._limit:
            raise too_long(f"query and document have {len(token_ids)} tokens together", self._limit, _REMEDY)
        return EncodedRow.of_tokens(token_ids)


def _num_chars(pair: Pair) -> int:
    return len(pair.query) + len(pair.document)


def _reranking(facts: TaskFacts) -> Reranking:
    found = facts.own
    assert isinstance(found, Reranking), "RerankTask reads it"
    return found


class RerankYaml(TaskYaml):
    """`{kind: rerank}`."""

    changeable: ClassVar[Mapping[str, Change]] = {"query": by_defaults, "document": by_defaults}

    kind: Literal["rerank"] = Field(description="rerank")
    query: Text = Field(description='a template over the row\'s columns, such as "{{ question }}"')
    document: Text = Field(description='a template over the row\'s columns, such as "{{ body }}"')
    instruction: Text | None = Field(
        None, description="what a document is judged by, for checkpoints that take an instruction"
    )
    form: AskedForm = Field(
        "auto",
        description="auto (by the checkpoint's files), qwen3-reranker (its published template) or pair (two texts)",
    )

    def to_task(self) -> RerankTask:
        return RerankTask(**self.model_dump(exclude={"kind"}))

    @classmethod
    def recorded_as(cls, values: Mapping[str, Any]) -> type[Task]:
        del values
        return RerankTask
