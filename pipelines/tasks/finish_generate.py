"""Result columns of generation: the text, and the log probabilities of its tokens where they were asked for."""

from typing import Any

import pyarrow as pa

from models.engine.scheduling.request import TokenLogprobs
from pipelines.job import GenerateTask
from pipelines.tasks.answered import AnsweredRows

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


def generate_fields(task: GenerateTask) -> list["pa.Field[Any]"]:
    """The columns of a generation."""
    text = pa.field("text", pa.string())
    return [text] if task.sampling.logprobs is None else [text, pa.field("logprobs", LOGPROBS)]


def generate_columns(task: GenerateTask, rows: AnsweredRows) -> list["pa.Array[Any]"]:
    """One array a field."""
    text = pa.array([result.text for result in rows.generated], pa.string())
    if task.sampling.logprobs is None:
        return [text]
    logprobs = [[_token(token) for token in result.logprobs or ()] for result in rows.generated]
    return [text, pa.array(logprobs, LOGPROBS)]


def _token(token: TokenLogprobs) -> dict[str, Any]:
    top = [{"token_id": token_id, "logprob": logprob} for token_id, logprob in token.top.items()]
    return {"token_id": token.token_id, "logprob": token.logprob, "rank": token.rank, "top": top}
