"""What a task makes of rows: requests for the model, or the error of a row that it can make none of."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from actors.work import ApiCall, Asked, EngineWork
from models.tasks.label_tokens import LabelIds
from pipelines.errors import RowError
from pipelines.task_base.pace import Pace

Row = Mapping[str, Any]
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One request of a row: token ids [T], and for extraction their character offsets [T, 2] as `ModelRequest` has them; or a `call`
    of the HTTP API, without any. `labels` are those behind it, where they have other tokens than elsewhere. `task` is its number
    among several tasks."""

    token_ids: Int32Array
    offsets: Int32Array | None = None
    call: ApiCall | None = None
    labels: LabelIds | None = None
    task: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SeveralAsked:
    """What several tasks have of a row beside its requests: the text of each, None where it has none, and by their numbers the
    errors of those that can ask nothing of it."""

    texts: tuple[str | None, ...]
    errors: Mapping[int, RowError] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedRow:
    """A row's requests, and its rendered text where the answers are parts of it; `several` is what several tasks have in the place
    of the text."""

    pieces: tuple[Piece, ...]
    text: str | None = None
    several: SeveralAsked | None = None

    @classmethod
    def of_call(cls, call: ApiCall, text: str) -> "EncodedRow":
        """A row that is a call of the HTTP API, and a text that goes along with it."""
        return cls(pieces=(Piece(token_ids=np.empty(0, np.int32), call=call),), text=text)

    @classmethod
    def of_tokens(cls, token_ids: Sequence[int]) -> "EncodedRow":
        """A row of a single request."""
        return cls(pieces=(Piece(token_ids=np.array(token_ids, np.int32)),))


class RowEncoder(ABC):
    """A task over a checkpoint: rows in, requests out.

    `required_columns` have to exist in the input, `columns` are read if they do, and all there are with `reads_all`. `asked` is
    what the engine answers each request with. `trial` is asked once before all rows, for the task to know (`Task.found_in`).
    """

    columns: frozenset[str] = frozenset()
    required_columns: frozenset[str] = frozenset()
    reads_all: bool = False
    asked: Asked = Asked()
    trial: tuple[Piece, ...] = ()

    @abstractmethod
    def encode_rows(self, rows: Sequence[Row | RowError], pace: Pace) -> list[EncodedRow | RowError]:
        """The requests of each row of a unit, in its place; `pace` is told where the work stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """One thing for the model to compute: token ids, and which of the unit's good rows (by position) it belongs to.

    A row has several when its text is read in windows, and none when an extraction's text is empty. `offsets` are character offsets
    of the tokens in the row's text [T, 2] for extraction, with (-1, -1) on tokens that are not the text's; in windows that tag tokens
    also on tokens that a neighbouring window answers for, so that every token of the text is answered for once. `seed` keys a
    sampled row's draws. A `call` of the HTTP API has no token ids here: they are found where it is answered. `labels` are those of
    this request alone, None where they are the job's (`Asked.labels`). `task` is its number among several tasks.
    """

    row: int
    token_ids: Int32Array
    offsets: Int32Array | None = None
    seed: int = 0
    call: ApiCall | None = None
    labels: LabelIds | None = None
    task: int = 0


def work_of(name: str, requests: Sequence[ModelRequest]) -> EngineWork:
    """Requests that are no calls of the API, as an engine takes them."""
    tasks = [request.task for request in requests]
    return EngineWork.of(
        name,
        [request.token_ids for request in requests],
        [request.seed for request in requests],
        {number: request.labels for number, request in enumerate(requests) if request.labels is not None},
        tasks if any(tasks) else None,
    )
