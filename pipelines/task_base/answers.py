"""A unit's rows with the answers to their requests, as a task looks at them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from actors.work import ApiAnswer, EngineAnswer, FloatArray, OnePassAnswer
from models.engine.scheduling.request import Output
from pipelines.errors import RowError
from pipelines.task_base.requests import ModelRequest

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredRows:
    """Rows 0 to `num_rows`, and their requests with one result each, in row order; `rows` [R] is the row of each request.

    It is apart from what travels through the graph (`pipelines.rows.rows`) for what a task must not need: where the rows came from,
    what is carried along, which of them failed. What it holds are the prepared unit's and the answers' own values, unless rows are
    left out. `texts` are the rows' texts where there is something to extract.
    """

    num_rows: int
    rows: Int64Array
    requests: Sequence[ModelRequest]
    results: Sequence[EngineAnswer | RowError]
    texts: Sequence[str]

    @property
    def prompt_tokens(self) -> Int64Array:
        """Tokens of all requests of each row, but of those on which our own code failed."""
        asked = zip(self.requests, self.results, strict=True)
        lengths = [0 if isinstance(result, RowError) else len(request.token_ids) for request, result in asked]
        return np.bincount(self.rows, weights=lengths, minlength=self.num_rows).astype(np.int64)

    @property
    def logits(self) -> Sequence[FloatArray]:
        """The values of a single-pass task."""
        return [result.values for result in self.results if isinstance(result, OnePassAnswer)]

    @property
    def generated(self) -> list[Output]:
        """The results that are generations: of good rows, one per row."""
        return [result for result in self.results if isinstance(result, Output)]

    @property
    def answers(self) -> list[ApiAnswer]:
        """The results that are answers of the HTTP API: of good rows, one per row."""
        return [result for result in self.results if isinstance(result, ApiAnswer)]

    def first_requests(self) -> Int64Array:
        """Where each row's requests begin [num_rows + 1], the end of all last."""
        return np.searchsorted(self.rows, np.arange(self.num_rows + 1))

    def by_row(self) -> Iterator[slice]:
        """The requests of each row."""
        return (slice(start, end) for start, end in pairwise(self.first_requests().tolist()))

    def without(self, bad: npt.NDArray[np.bool_]) -> "AnsweredRows":
        """The rows where `bad` [num_rows] is false."""
        if not bad.any():
            return self
        positions = np.cumsum(~bad) - 1  # [num_rows] a good row's new number
        keep = np.flatnonzero(~bad[self.rows]).tolist()
        return AnsweredRows(
            num_rows=int(np.count_nonzero(~bad)),
            rows=positions[self.rows[keep]],
            requests=[self.requests[index] for index in keep],
            results=[self.results[index] for index in keep],
            texts=[text for text, is_bad in zip(self.texts, bad.tolist(), strict=True) if not is_bad]
            if self.texts
            else (),
        )
