"""A unit's rows with the answers to their requests, as a task looks at them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, pairwise

import numpy as np
import numpy.typing as npt

from actors.work import ApiAnswer, EngineAnswer, FloatArray, OnePassAnswer
from models.engine.scheduling.request import Output
from pipelines.errors import RowError
from pipelines.task_base.requests import ModelRequest, SeveralAsked

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredRows:
    """Rows 0 to `num_rows`, and their requests with one result each, in row order; `rows` [R] is the row of each request.

    It is apart from what travels through the graph (`pipelines.rows.rows`) for what a task must not need: where the rows came from,
    what is carried along, which of them failed. What it holds are the prepared unit's and the answers' own values, unless rows are
    left out. `texts` are the rows' texts where there is something to extract. `errors` are those of rows, by row and task, and
    `several` what several tasks have of each row beside its requests.
    """

    num_rows: int
    rows: Int64Array
    requests: Sequence[ModelRequest]
    results: Sequence[EngineAnswer | RowError]
    texts: Sequence[str]
    several: Sequence[SeveralAsked] = ()
    errors: Mapping[tuple[int, int], RowError] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> Int64Array:
        """Tokens of all requests of each row, but of those on which our own code failed."""
        asked = zip(self.requests, self.results, strict=True)
        lengths = [0 if isinstance(result, RowError) else len(request.token_ids) for request, result in asked]
        return np.bincount(self.rows, weights=lengths, minlength=self.num_rows).astype(np.int64)

    @property
    def completion_tokens(self) -> Int64Array:
        """Tokens that were generated for each row."""
        lengths = [len(result.token_ids) if isinstance(result, Output) else 0 for result in self.results]
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
            texts=list(compress(self.texts, ~bad)),  # of all rows, or of none
            several=list(compress(self.several, ~bad)),
            errors={(int(positions[row]), task): error for (row, task), error in self.errors.items() if not bad[row]},
        )

    def of_task(self, number: int) -> "AnsweredRows":
        """All rows, as one of several tasks has them."""
        own = [place for place, request in enumerate(self.requests) if request.task == number]
        texts = [one.texts[number] for one in self.several]
        return AnsweredRows(
            num_rows=self.num_rows,
            rows=self.rows[own],
            requests=[self.requests[place] for place in own],
            results=[self.results[place] for place in own],
            texts=[text or "" for text in texts] if any(text is not None for text in texts) else (),
            errors={(row, 0): error for (row, task), error in self.errors.items() if task == number},
        )
