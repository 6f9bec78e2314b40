"""The online service on Ray Serve: one deployment a model, whose replicas are engines, and one that speaks HTTP.

    serve.run(service_app(models, keys_file="keys.txt"), name="support", route_prefix="/")

An engine replica of several shards lives in a placement group that Serve makes and removes with it. It ends itself when a step of it
hangs or a shard is lost, and Serve starts another; the requests it had get an EngineError.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from actors.engine.owner import Packing
from actors.engine.shard_group import group_shards
from actors.errors import OverloadedError
from actors.http.limits import ConcurrencyLimit, RequestLimits
from actors.online.coalesce import coalesced
from actors.online.local import LocalModel
from actors.online.model import FloatArray, ModelCard, OnlineModel, OnlineRequest
from actors.work import CHUNK_ROWS, ENGINE_FAILED, INGRESS, Asked, EngineAnswer, EngineSettings, EngineWork
from models import SamplingParams
from models.engine.scheduling.request import Delta
from models.engine.scheduling.stats import EngineStats
from models.engine.watchdog import Watchdog
from models.errors import EngineError, ModelError
from models.tasks.embedding import EmbedOptions
from models.tasks.label_tokens import LabelIds
from models.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

DRAIN_S = 30.0
HEALTH_PERIOD_S = 5.0
HEALTH_TIMEOUT_S = 15.0
STATS_TIMEOUT_S = 4.0
QUEUE_FACTOR = 2
"""Requests that an engine has at once, for each of its sequences: those that it runs, and as many that wait."""

WARM_UP_TOKENS = 4
PIECE_S = 0.02
"""What a stream's deltas are put together over, after the first: a call between processes costs more than a step of a small model."""
BATCH_FACTOR = 2
"""Rows of jobs that an engine has at once, for each of its sequences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDeployment:
    """One model of a service: its name in requests, how it is loaded, from how many to how many replicas there are, the CPUs and GPUs of
    a shard, and how the shards of a replica lie on nodes."""

    name: str
    settings: EngineSettings
    min_replicas: int
    max_replicas: int
    num_cpus: float
    num_gpus: float
    packing: Packing


class EngineReplica:
    """One engine of a model."""

    def __init__(self, settings: EngineSettings) -> None:
        """Loads the model and computes something with it, so that a replica that is up is ready.

        Raises:
            ModelError: the checkpoint cannot be loaded.
        """
        watchdog = Watchdog(settings.step_timeout_s, _end)
        self._model = LocalModel.load(settings, start=group_shards(settings, _end), watchdog=watchdog)
        self._is_warm = False
        self._settings = settings
        self._batch_slots = asyncio.Semaphore(max(1, BATCH_FACTOR * settings.max_num_seqs // CHUNK_ROWS))

    async def check_health(self) -> None:
        """Called by Serve before the first request and every few seconds: an engine that is lost is replaced. One that hangs has ended
        itself."""
        await self._model.stats()
        if not self._is_warm:
            await self._warm_up()
            self._is_warm = True

    async def stream(self, request: OnlineRequest) -> AsyncGenerator[Delta]:
        """See `OnlineModel`."""
        async with aclosing(coalesced(self._model.stream(request), PIECE_S)) as deltas:
            async for delta in deltas:
                yield delta

    async def score(self, token_ids: Sequence[Sequence[int]]) -> list[FloatArray]:
        """See `OnlineModel`."""
        return await self._model.score(token_ids)

    async def score_labels(self, token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> FloatArray:
        """See `OnlineModel`."""
        return await self._model.score_labels(token_ids, labels)

    async def embed(self, token_ids: Sequence[Sequence[int]], options: EmbedOptions) -> FloatArray:
        """See `OnlineModel`."""
        return await self._model.embed(token_ids, options)

    async def describe(self) -> EngineSettings:
        """What this replica was made from."""
        return self._settings

    async def compute(self, work: EngineWork, asked: Asked) -> list[EngineAnswer]:
        """The answers to rows of a job, at batch priority; see `LocalModel.compute`. A bounded number of them is in the engine, the
        others wait here: for Serve a call is one request, however many rows it has, so that rows neither fill its queue nor make
        it start replicas."""
        async with self._batch_slots:
            return await self._model.compute(work, asked)

    async def stats(self) -> EngineStats:
        """See `OnlineModel`: of this replica alone."""
        return await self._model.stats()

    async def _warm_up(self) -> None:
        if not self._model.is_generative:
            await self._model.score([[0]])
            return
        params = SamplingParams(max_tokens=WARM_UP_TOKENS, temperature=0.0, ignore_eos=True)
        async for _ in self._model.stream(OnlineRequest(request_id="warm-up", token_ids=(0,), params=params)):
            pass


def _end(cause: str) -> NoReturn:
    """Ends the replica's process: its requests get an error at once, and Serve starts another."""
    logger.error("the engine ends itself: %s", cause)
    os._exit(ENGINE_FAILED)


class RemoteModel(OnlineModel):
    """A model that is served by the replicas behind a handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._seen: dict[str, EngineStats] = {}  # of every engine that there was, as it last said

    async def stream(self, request: OnlineRequest) -> AsyncGenerator[Delta]:
        responses: Any = self._handle.options(stream=True).stream.remote(request)
        is_over = False
        try:
            async for delta in responses:
                is_over = delta.finish_reason is not None
                yield delta
        except Exception as error:
            is_over = True
            raise _error_for_caller(error) from error
        finally:
            if not is_over:
                responses.cancel()

    async def score(self, token_ids: Sequence[Sequence[int]]) -> list[FloatArray]:
        found: list[FloatArray] = await self._ask("score", token_ids)
        return found

    async def score_labels(self, token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> FloatArray:
        found: FloatArray = await self._ask("score_labels", token_ids, labels)
        return found

    async def embed(self, token_ids: Sequence[Sequence[int]], options: EmbedOptions) -> FloatArray:
        found: FloatArray = await self._ask("embed", token_ids, options)
        return found

    async def stats(self) -> EngineStats:
        try:
            async with asyncio.timeout(STATS_TIMEOUT_S):
                found = await self._handle.broadcast("stats").results_async()
        except (RayError, TimeoutError) as error:
            raise EngineError(f"the replicas do not answer: {type(error).__name__}") from error
        if not found:
            raise EngineError("no replica is up")
        serving: dict[str, EngineStats] = {stats.engine_id: stats for stats in found}
        gone = [stats.without_load() for engine_id, stats in self._seen.items() if engine_id not in serving]
        self._seen |= serving
        return sum([*serving.values(), *gone], EngineStats())

    async def _ask(self, method: str, *arguments: object) -> Any:
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except Exception as error:
            raise _error_for_caller(error) from error


def _error_for_caller(error: Exception) -> Exception:
    """What a caller is told of an error of a call to a replica."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, ModelError | OverloadedError):
        return error.cause
    if isinstance(error, BackPressureError):
        return OverloadedError("every replica has as many requests as it takes")
    if isinstance(error, RayError | DeploymentUnavailableError | ReplicaUnavailableError):
        return EngineError(f"the replica that had this request is lost: {type(error).__name__}")
    return error


@serve.ingress()
class Ingress:
    """Speaks HTTP for all models of a service."""

    def __init__(
        self, models: Sequence[ModelDeployment], handles: Sequence[DeploymentHandle[Any]], keys_file: str | None
    ) -> None:
        self._models, self._handles, self._keys_file = models, handles, keys_file

    def __serve_build_asgi_app__(self) -> Any:
        """The app, made where it runs."""
        from actors.http.app import create_app
        from actors.http.security import ApiKeys
        from actors.http.served import ServedModel
        from actors.http.texts.text_pool import TextPool

        folders = [model.settings.find("description").folder for model in self._models]
        pools = [TextPool(folder) for folder in folders]  # they start side by side
        served = []
        for model, handle, folder, texts in zip(self._models, self._handles, folders, pools, strict=True):
            texts.start()  # what it cannot load is not loaded here either
            tokenizer = Tokenizer.from_pretrained(folder)
            card = ModelCard.from_description(model.name, folder, tokenizer, max_model_len=model.settings.max_model_len)
            admission = ConcurrencyLimit(QUEUE_FACTOR * model.settings.max_num_seqs * model.max_replicas)
            online = RemoteModel(handle)
            served.append(ServedModel(card=card, tokenizer=tokenizer, texts=texts, model=online, admission=admission))
        keys = None if self._keys_file is None else ApiKeys(self._keys_file)
        return create_app(served, keys=keys, limits=RequestLimits())

    async def check_health(self) -> None:
        """Called by Serve every few seconds, on the event loop that requests are served on: it answers if that does. A process that
        does not answer is replaced."""


def service_app(models: Sequence[ModelDeployment], *, keys_file: str | None) -> serve.Application:
    """The Serve application of these models."""
    handles = [_deployment_of(model).bind(model.settings) for model in models]
    ingress: Any = serve.deployment(
        Ingress,
        name=INGRESS,
        max_ongoing_requests=1_000_000,  # what is too much is told with 429, model by model
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=DRAIN_S,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
    )
    app: serve.Application = ingress.bind(list(models), handles, keys_file)
    return app


def _deployment_of(model: ModelDeployment) -> Any:
    settings = model.settings
    shard = {name: count for name, count in (("CPU", model.num_cpus), ("GPU", model.num_gpus)) if count}
    options: dict[str, Any] = {
        "name": model.name,
        "max_ongoing_requests": QUEUE_FACTOR * settings.max_num_seqs,
        "ray_actor_options": {"num_cpus": model.num_cpus, "num_gpus": model.num_gpus},
        "graceful_shutdown_timeout_s": DRAIN_S,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
    }
    if settings.tensor_parallel_size > 1:
        options["placement_group_bundles"] = [shard] * settings.tensor_parallel_size
        options["placement_group_strategy"] = model.packing
    if model.min_replicas == model.max_replicas:
        options["num_replicas"] = model.min_replicas
    else:
        options["autoscaling_config"] = {
            "min_replicas": model.min_replicas,
            "max_replicas": model.max_replicas,
            "target_ongoing_requests": max(1, settings.max_num_seqs // 2),
        }
    return serve.deployment(EngineReplica, **options)
