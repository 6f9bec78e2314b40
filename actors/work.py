"""What an engine is made from, what it is asked, what it answers and how it ends, without a word on rows, units or columns.

Plain values that pickle small and fast: they cross from one process to another.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from models.checkpoint.found import FoundCheckpoint, Parts
from models.checkpoint.place import find_checkpoint
from models.config.option import Option, declared
from models.config.quantization import QuantizationConfig
from models.engine.options import EngineOptions
from models.engine.scheduling.request import Output, SamplingParams
from models.tasks.embedding import EmbedOptions
from models.tasks.label_tokens import LabelIds

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

OnFailure = Callable[[str], None]
"""Takes why an engine is of no more use, from whatever thread finds out."""

OnAnswered = Callable[[int], None]
"""Takes how many more requests of a work have their answers, from whatever thread computes them."""

ENGINE_FAILED = 70
"""The exit status of an engine's process that ends itself."""

CHUNK_ROWS = 32
"""Rows of a job that go to a replica of a service in one call."""

INGRESS = "_http"
"""What speaks HTTP among the deployments of a service. The others have the names of its models, which begin with a letter or digit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaOptions(EngineOptions):
    """The options of an engine that somebody watches over: those of an engine, and when it counts as lost."""

    step_timeout_s: Annotated[
        float,
        Option(
            "after which a step that has not ended means that the engine, or a shard of it, hangs: it is started afresh",
            unit="seconds",
            above=0,
        ),
    ] = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedOfApi:
    """That requests are calls of the HTTP API, answered as if it was `now`, in UTC (None: whenever that is)."""

    now: dt.datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What every request of a job asks of an engine: an answer of the HTTP API, with `api`; text, with `sampling`; else what one pass says
    of it - the log probability of each of `labels` (token ids) after it where there are some, a vector with `embed`, or the
    logits of the task head. Requests of several tasks are each of one of `several`, by its number (`EngineWork.tasks`)."""

    sampling: SamplingParams | None = None
    labels: LabelIds = ()
    embed: EmbedOptions | None = None
    api: AskedOfApi | None = None
    several: "tuple[Asked, ...]" = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSettings(ReplicaOptions):
    """What an engine process is made from; a restart makes the same one again.

    `path` is a checkpoint folder, a URL with its `storage_options`, or a hub id; `version` pins
    what was found there (see `models.checkpoint.place`); `model_options` are options of its family
    alone.

    `asked` is what it answers a job's requests with; with `dedup` equal ones that are in flight at
    the same time are computed once, which is for answers that follow from the tokens alone.
    `num_threads` is what one matrix product uses on the CPU.
    """

    path: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    version: str | None = None
    dtype: str = "auto"
    quantization: str | QuantizationConfig | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    asked: Asked = Asked()
    dedup: bool = False
    num_threads: int = 1

    @property
    def options(self) -> EngineOptions:
        """The sizes of the engine alone."""
        return EngineOptions(**{name: getattr(self, name) for name in declared(EngineOptions)})

    def find(self, parts: Parts = "whole") -> FoundCheckpoint:
        """These parts of the checkpoint on this machine; see `models.checkpoint.place.find_checkpoint`.

        Raises:
            CheckpointError: it cannot be read, or is another version by now.
        """
        return find_checkpoint(self.path, parts=parts, storage_options=self.storage_options, version=self.version)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineWork:
    """Requests that are computed together: all token ids in a row [sum of T], each request's number of tokens [N], and its seed [N].
    `own_labels` are those of single requests, by their number, that are scored in the place of `Asked.labels`. `tasks` [N] is which
    of `Asked.several` each request is of, None where all are of the first."""

    name: str
    token_ids: Int32Array
    lengths: Int64Array
    seeds: Int64Array
    own_labels: Mapping[int, LabelIds] = field(default_factory=dict)
    tasks: Int32Array | None = None

    @classmethod
    def of(
        cls,
        name: str,
        token_ids: Sequence[Int32Array],
        seeds: Sequence[int],
        own_labels: Mapping[int, LabelIds] | None = None,
        tasks: Sequence[int] | None = None,
    ) -> "EngineWork":
        """Packs one array of token ids and one seed a request; `name` tells this work from any other that is in flight."""
        return cls(
            name=name,
            token_ids=np.concatenate(token_ids) if token_ids else np.empty(0, np.int32),
            lengths=np.array([len(ids) for ids in token_ids], np.int64),
            seeds=np.array(seeds, np.int64),
            own_labels=own_labels or {},
            tasks=None if tasks is None else np.array(tasks, np.int32),
        )

    @property
    def num_requests(self) -> int:
        return len(self.lengths)

    @property
    def task_numbers(self) -> Int32Array:
        """Which task each request is of [N]."""
        return np.zeros(self.num_requests, np.int32) if self.tasks is None else self.tasks

    def halves(self) -> tuple["EngineWork", "EngineWork"]:
        """The first and the second half of the requests, under names of their own."""
        middle = len(self.lengths) // 2
        return self.part(f"{self.name}a", 0, middle), self.part(f"{self.name}b", middle, len(self.lengths))

    def part(self, name: str, start: int, end: int) -> "EngineWork":
        """The requests from number `start` to before `end`, under a name of their own."""
        before, upto = int(self.lengths[:start].sum()), int(self.lengths[:end].sum())
        return EngineWork(
            name=name,
            token_ids=self.token_ids[before:upto],
            lengths=self.lengths[start:end],
            seeds=self.seeds[start:end],
            own_labels={number - start: ids for number, ids in self.own_labels.items() if start <= number < end},
            tasks=None if self.tasks is None else self.tasks[start:end],
        )

    def picked(self, numbers: Sequence[int], *, name: str | None = None) -> "EngineWork":
        """The requests of these numbers, in their order; works of one origin that are in flight together each need a `name`."""
        ends = np.cumsum(self.lengths)
        return EngineWork.of(
            self.name if name is None else name,
            [self.token_ids[ends[number] - self.lengths[number] : ends[number]] for number in numbers],
            self.seeds[list(numbers)].tolist(),
            {place: self.own_labels[number] for place, number in enumerate(numbers) if number in self.own_labels},
            None if self.tasks is None else self.tasks[list(numbers)].tolist(),
        )

    def labels(self, labels: LabelIds) -> list[LabelIds]:
        """The labels that are scored behind each request; `labels` are those of all without their
        own."""
        return [self.own_labels.get(number, labels) for number in range(self.num_requests)]

    def requests(self) -> Iterator[list[int]]:
        """The token ids of each request."""
        end = 0
        for length in self.lengths.tolist():
            start, end = end, end + length
            yield self.token_ids[start:end].tolist()


@dataclass(frozen=True, kw_only=True, slots=True)
class OnePassAnswer:
    """What one pass says of a request: float32 `values` as the scorer returns them ([labels], [T,
    labels], [T, 2]; of labels their log probabilities [L]; of an embedding its vector [D]).
    `num_cached_tokens` of its tokens were not computed for it, but for another request or an
    earlier one."""

    values: FloatArray
    num_cached_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The answer to a request, of any kind, that cannot be served; `error` says why."""

    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiCall:
    """One call of the HTTP API: a POST of a JSON `body` to a path such as /v1/completions."""

    path: str
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiWork:
    """Calls of the HTTP API that are answered together, and each one's seed: of its draws where its body has none, and of its id."""

    name: str
    calls: tuple[ApiCall, ...]
    seeds: tuple[int, ...]

    @property
    def num_requests(self) -> int:
        return len(self.calls)

    def halves(self) -> tuple["ApiWork", "ApiWork"]:
        """The first and the second half of the calls, under names of their own."""
        middle = len(self.calls) // 2
        return (
            replace(self, name=f"{self.name}a", calls=self.calls[:middle], seeds=self.seeds[:middle]),
            replace(self, name=f"{self.name}b", calls=self.calls[middle:], seeds=self.seeds[middle:]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiAnswer:
    """What the HTTP API answers to a call: a status, and a JSON body."""

    status: int
    body: bytes


def digits_of(seed: int) -> str:
    """What ids are made from: 32 hexadecimal digits that tell a row from any other of its job."""
    return hashlib.blake2b(seed.to_bytes(8), digest_size=16).hexdigest()


def unheard(count: int) -> None:
    """An `OnAnswered` of a caller who waits for all answers."""
    del count


Work = EngineWork | ApiWork
EngineAnswer = Output | OnePassAnswer | ApiAnswer | Refused
"""What an engine makes of one request: of a generation its output; what one pass says of it; the
answer of the HTTP API to a call of it; or a refusal."""
