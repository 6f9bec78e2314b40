"""What a task asks before all rows, put to the first engine of a run: the answers are part of the run's record."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import ray

from actors.engine.owner import ReplicaOwner
from actors.work import OnePassAnswer
from pipelines.errors import TaskError
from pipelines.rows.blocks import packed, unpacked
from pipelines.rows.rows import Answers
from pipelines.task_base.requests import ModelRequest, Piece, work_of

WAIT_S: Final = 0.2


def answers_to_trial(trial: Sequence[Piece], engines: ReplicaOwner, look: Callable[[], None]) -> list[OnePassAnswer]:
    """The answers of the first of the engines. It may be loading still, and is asked again where it dies; `look` is called
    meanwhile, and raises what ends the run.

    Raises:
        TaskError: an answer is a refusal, or no number.
    """
    requests = [
        ModelRequest(row=number, token_ids=piece.token_ids, labels=piece.labels) for number, piece in enumerate(trial)
    ]
    asked = engines.first.compute.options(max_task_retries=-1).remote(packed(work_of("trial", requests)))
    while not ray.wait([asked], timeout=WAIT_S)[0]:
        look()
    found: Answers = unpacked(ray.get(asked))
    answers: list[OnePassAnswer] = []
    for answer in found.results:
        if not isinstance(answer, OnePassAnswer) or not np.isfinite(answer.values).all():
            what = f"the model's answer to a text that says nothing was {answer!r}"
            raise TaskError("task.calibrate", f"{what}; try dtype: float32, or another calibration")
        answers.append(answer)
    return answers
