"""What a task asks before all rows, put to the first engine of a run: the answers are part of the run's record."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from actors.work import OnePassAnswer
from pipelines.errors import TaskError
from pipelines.rows.blocks import packed
from pipelines.rows.rows import Answers
from pipelines.task_base.requests import ModelRequest, Piece, work_of


class AnswersWork(Protocol):
    """An engine that can be asked before a run's units are settled; see `FirstEngine`."""

    def answers(self, work: bytes, *, retries: int = 0) -> Answers | None: ...


def answers_to_trial(trial: Sequence[Piece], engine: AnswersWork) -> list[OnePassAnswer]:
    """The answers of an engine, which is asked again if it dies.

    Raises:
        TaskError: an answer is a refusal, or no number.
    """
    requests = [
        ModelRequest(row=number, token_ids=piece.token_ids, labels=piece.labels, task=piece.task)
        for number, piece in enumerate(trial)
    ]
    found = engine.answers(packed(work_of("trial", requests)), retries=-1)
    assert found is not None, "no engine is let go before the run computes"
    answers: list[OnePassAnswer] = []
    for answer in found.results:
        if not isinstance(answer, OnePassAnswer) or not np.isfinite(answer.values).all():
            what = f"the model's answer to a text that says nothing was {answer!r}"
            raise TaskError("task.calibrate", f"{what}; try dtype: float32, or another calibration")
        answers.append(answer)
    return answers
