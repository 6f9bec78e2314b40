"""The engine: requests in, tokens and text out, one step at a time. One process, no cluster.

While one step computes, the host works on the last one's tokens, and on a GPU plans the next.
`stream.AsyncEngine` drives the same steps for many callers.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Unpack

from models.checkpoint.place import local_folder
from models.config.families import with_old_spelling
from models.config.quantization import QuantizationConfig
from models.engine.intake import Intake
from models.engine.live_request import Delivery, LiveRequest
from models.engine.memory import MemoryPlan
from models.engine.options import EngineKeywords, EngineOptions
from models.engine.runner import LaunchedStep, Runner
from models.engine.scheduler_of import scheduler_of
from models.engine.scheduling.request import Output, Priority, SamplingParams
from models.engine.scheduling.scheduler import SequenceProgress, StepResult
from models.engine.scheduling.stats import EngineStats
from models.engine.scoring.scorer import Scorer
from models.engine.shard_processes import LocalShards, Shards, ShardWork, StartShards, start_shards
from models.errors import EngineError, RequestError
from models.loading.load import LoadedModel, load_model, load_tokenizer, require_causal
from models.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class Engine:
    """A causal model with a scheduler in front of it. Not safe for several threads; see `stream.AsyncEngine`."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        tokenizer: Tokenizer | None,
        options: EngineOptions,
        seed: int | None = None,
        launcher: ThreadPoolExecutor | None = None,
        shards: Shards | None = None,
    ) -> None:
        """`launcher` is the one thread that steps run in, best the one the model was loaded in; `shards` are the model's
        other ranks, if they end with this one."""
        self.config, self.tokenizer, self.max_model_len = loaded.config, tokenizer, loaded.max_model_len
        self._loaded, self._runner = loaded, Runner(loaded, options)
        self._scheduler = scheduler_of(loaded, self._runner, options)
        self._intake = Intake(loaded.config, tokenizer, seed)
        self._live: dict[str, LiveRequest] = {}
        self._ended: list[Delivery] = []
        self._launched: deque[Future[LaunchedStep]] = deque()
        self._result: StepResult | None = None  # of the oldest step, until it is committed
        self._launcher, self._shards = launcher or _one_thread(), shards
        self._num_steps = 0
        self._failure: str | None = None  # once a step has failed

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        quantization: str | QuantizationConfig | None = None,
        model_options: Mapping[str, Any] = MappingProxyType({}),
        mamba_dt_clamp: str = "prefill",
        options: EngineOptions | None = None,
        start: StartShards = LocalShards,
        launcher: ThreadPoolExecutor | None = None,
        **settings: Unpack[EngineKeywords],
    ) -> "Engine":
        """Loads a causal Hugging Face checkpoint: a folder, a URL or a hub id (`models.checkpoint.place`); see `load_model`.
        `settings` are fields of `EngineOptions`, `model_options` those that the checkpoint's family declares (`mamba_dt_clamp`
        alone is the old spelling of one). Without tokenizer.json it takes token ids only. `start` makes the other shards of a
        `tensor_parallel_size` over 1: processes of this machine, which `close` ends. `launcher` is a thread for the model to be
        loaded and computed in, which `close` ends too.

        Raises:
            ModelError: the checkpoint or a setting cannot be used.
        """
        chosen = EngineOptions(**{**asdict(options or EngineOptions()), **settings})
        folder = local_folder(path)
        launcher = launcher or _one_thread()
        load: dict[str, Any] = {
            "path": folder, "dtype": dtype, "device": device, "quantization": quantization,
            "model_options": with_old_spelling(model_options, mamba_dt_clamp), "max_model_len": chosen.max_model_len,
        }  # fmt: skip
        shards = start_shards(ShardWork(load=load, options=chosen), chosen.tensor_parallel_size, start)
        try:
            loaded = launcher.submit(lambda: load_model(**load, tp=shards.join())).result()
            require_causal(loaded, path)
            return cls(loaded, tokenizer=load_tokenizer(folder), options=chosen, launcher=launcher, shards=shards)
        except BaseException:
            shards.kill()
            launcher.shutdown()
            raise

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the other shards, where there are some, and the thread that launches steps."""
        shards, self._shards = self._shards, None
        self._launcher.shutdown(wait=True)
        if shards is not None:
            shards.close()

    def scorer(self, watchdog: AbstractContextManager[None] | None = None) -> Scorer:
        """What scores and embeds with the same weights and shards, as long as this engine is open. To be used in the launcher's
        thread alone, where its passes stand between steps."""
        return Scorer(self._loaded, tokenizer=self.tokenizer, watchdog=watchdog)

    @property
    def memory(self) -> MemoryPlan:
        """What a shard takes, and what fits in."""
        return self._runner.memory

    @property
    def stats(self) -> EngineStats:
        """Load and counters. May be asked for while another thread steps."""
        pool = self._scheduler.pool
        return EngineStats(
            by_priority={priority: lane.stats() for priority, lane in self._scheduler.lanes.items()},
            num_steps=self._num_steps,
            num_blocks=pool.num_blocks,
            num_blocks_held=pool.num_held,
            num_blocks_idle=pool.num_idle,
        )

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._scheduler.has_work or self._ended)

    def generate(self, prompts: Seq[str | Seq[int]], params: SamplingParams | Seq[SamplingParams]) -> list[Output]:
        """Runs prompts (texts, or lists of token ids) to their ends; outputs come in the prompts' order.

        Raises:
            RequestError: a prompt cannot be served, or requests from `add` are unfinished; nothing is computed then.
            EngineError: a step failed.
        """
        if self._live:
            raise RequestError(
                f"unfinished requests from add(): {len(self._live)}; generate() would swallow what they bring, so step() "
                "them to their ends first"
            )
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else list(params)
        if len(each) != len(prompts):
            raise RequestError(
                f"{len(prompts)} prompts came with {len(each)} sampling parameters; give one, or one a prompt"
            )
        names = [f"generate-{index}" for index in range(len(prompts))]
        outputs: dict[str, Output] = {}
        try:
            for name, prompt, chosen in zip(names, prompts, each, strict=True):
                self.add(name, self._intake.token_ids(prompt), chosen)
            while self.has_work:
                outputs |= {each.request_id: each.answer for each in self.step() if isinstance(each.answer, Output)}
        except BaseException:
            for name in names:
                self.abort(name)
            self._ended.clear()
            raise
        return [outputs[name] for name in names]

    def add(
        self,
        request_id: str,
        token_ids: Seq[int],
        params: SamplingParams,
        *,
        seed: int | None = None,
        is_streamed: bool = False,
        priority: Priority = "batch",
    ) -> None:
        """Queues a request. `seed` keys its draws unless `params.seed` does; with `is_streamed` each
        step that brings it tokens delivers a delta, else its output comes at the end. An "online" request goes
        before every "batch" one from the next step on.

        Raises:
            RequestError: the request can never be served, or its id is in use.
            EngineError: a step failed before.
        """
        self._check_usable()
        if request_id in self._live:
            raise RequestError(f"request id {request_id!r} is in use; choose another")
        request = self._intake.request(request_id, token_ids, params, seed=seed, priority=priority)
        sequence = self._scheduler.add(request)
        self._live[request_id] = LiveRequest(sequence, self.tokenizer, is_streamed=is_streamed)

    def abort(self, request_id: str) -> None:
        """Ends a request now: its blocks are free at once, and so is its id. What there is comes with the next step,
        or with `take_ended`. Unknown and finished ids are ignored."""
        live = self._live.pop(request_id, None)
        if live is not None:
            self._scheduler.finish(live.sequence, "abort")
            self._ended += live.deliveries([], "")

    def abort_all(self, priority: Priority) -> list[str]:
        """Ends every unfinished request of a priority as `abort` does, oldest first. Returns their ids: on drain, batch work
        goes back at once."""
        ids = [name for name, live in self._live.items() if live.sequence.request.priority == priority]
        for request_id in ids:
            self.abort(request_id)
        return ids

    def take_ended(self) -> list[Delivery]:
        """What there is of requests that were aborted since the last step."""
        ended, self._ended = self._ended, []
        return ended

    def wait(self) -> None:
        """Waits until the next step can be launched, as `step` does by itself. What is added or aborted between the two is in
        that step, and not a step late.

        Raises:
            EngineError: a step failed; the engine cannot be used any more.
        """
        with self._using():
            if len(self._launched) == self._runner.max_steps_in_flight:
                self._take_result()

    def step(self) -> list[Delivery]:
        """Waits until the next step can be launched, launches it, and while it computes works on the tokens of the last. Returns
        what there is of requests that are streamed or have ended.

        Raises:
            EngineError: a step failed; the engine cannot be used any more.
        """
        self.wait()
        with self._using():
            progress = self._commit()
            plan = self._scheduler.schedule()
            if plan is not None:
                self._launched.append(self._launcher.submit(self._runner.launch, plan))
                self._num_steps += 1
            elif not progress and self._launched:
                self._take_result()
                progress = self._commit()
        return self.take_ended() + [each for entry in progress for each in self._advance(entry)]

    def check_integrity(self) -> None:
        """Raises EngineError when the block pool does not add up."""
        self._scheduler.check_integrity()

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Whatever is raised within, plans and results no longer belong together: it was the engine's last."""
        self._check_usable()
        try:
            yield
        except BaseException as error:
            self._failure = f"a step of the engine failed: {error!r}"
            if isinstance(error, Exception):
                raise EngineError(self._failure) from error
            raise

    def _take_result(self) -> None:
        """Waits for the oldest step."""
        self._result = self._launched.popleft().result().result()

    def _commit(self) -> list[SequenceProgress]:
        """Brings the sequences up to the oldest step, if it is done."""
        if self._result is None:
            return []
        result, self._result = self._result, None
        return self._scheduler.commit(result)

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise EngineError(f"the engine cannot be used any more: {self._failure}; load the model again")

    def _advance(self, entry: SequenceProgress) -> list[Delivery]:
        """What a sequence's new tokens bring; ends it where a stop string appears."""
        sequence = entry.sequence
        live = self._live[sequence.request.request_id]
        text = live.push(entry.new_tokens)
        if live.is_stopped:
            self._scheduler.finish(sequence, "stop")
            sequence.finish_reason = "stop"  # even if max_tokens ended it with the same token
        if sequence.is_finished:
            del self._live[sequence.request.request_id]
        return live.deliveries(entry.new_tokens, text)


def _one_thread() -> ThreadPoolExecutor:
    """The thread that loads a model and then runs its steps. It has to be the same one: each thread that computes gets
    OpenMP threads of its own, and with more of them than cores OpenMP no longer spins, which cost a third of the speed."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="millrace-step")
