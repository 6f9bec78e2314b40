"""A job's rows on the replicas of a running service, at batch priority: an engine without a model of its own.

    find_model("support", path)      which model of the service it is, in the driver
    service_engine(...)              what answers requests, in the process of an engine

Rows go out in chunks, a limited number at a time. A chunk whose replica is lost or replaced is
sent to another.
"""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from actors.work import CHUNK_ROWS, INGRESS, EngineAnswer, EngineSettings, EngineWork, OnAnswered, OnFailure, unheard
from models.config.families import asked
from models.errors import EngineError, ModelError
from pipelines.errors import ClusterError
from pipelines.graph.engine_actor import AnswersRequests

logger = logging.getLogger(__name__)

CHUNKS_IN_FLIGHT = 64
PATIENCE_S = 300.0
RETRY_S = 1.0
ASK_S = 60.0
_IDENTITY = ("path", "version", "dtype", "quantization")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModelName:
    """A model of a service on this cluster."""

    service: str
    model: str


def find_model(service: str, settings: EngineSettings) -> ServedModelName:
    """The model of a service that has the job's checkpoint, loaded as the job asks.

    Raises:
        ClusterError: there is no such service on this cluster, or it does not have that model; the text says what there is.
    """
    try:
        apps = serve.status().applications
    except RayServeException:
        apps = {}
    if service not in apps:
        raise ClusterError(
            f"engine.service was {service!r}; this cluster runs {', '.join(map(repr, apps)) or 'no service'}"
        )
    found = asyncio.run(_settings_by_model(service, [name for name in apps[service].deployments if name != INGRESS]))
    for name, theirs in found.items():
        if is_same_model(theirs, settings):
            return ServedModelName(service=service, model=name)
    served = ", ".join(f"{name} ({_settings_text(theirs)})" for name, theirs in found.items())
    raise ClusterError(
        f"engine.service: {service!r} does not serve the job's model, {_settings_text(settings)}, loaded so; it serves {served}"
    )


async def _settings_by_model(service: str, names: Sequence[str]) -> dict[str, EngineSettings]:
    """What the replicas of each of these models are made from. Within a loop, since Serve may be set to pass requests in its caller's."""
    handles = [serve.get_deployment_handle(name, app_name=service) for name in names]
    try:
        async with asyncio.timeout(ASK_S):
            found = await asyncio.gather(*(handle.describe.remote() for handle in handles))
    except (RayError, RayServeException, TimeoutError) as error:
        raise ClusterError(
            f"the service {service!r} does not answer: {type(error).__name__}; is it up and ready?"
        ) from error
    return dict(zip(names, found, strict=True))


def is_same_model(one: EngineSettings, other: EngineSettings) -> bool:
    """Whether they load the same weights in the same way."""
    is_same = all(getattr(one, name) == getattr(other, name) for name in _IDENTITY)
    return is_same and asked(one.model_options) == asked(other.model_options)


def _settings_text(settings: EngineSettings) -> str:
    options = "".join(f", {name} {value}" for name, value in asked(settings.model_options).items())
    version = "" if settings.version is None else f", version {settings.version}"
    return f"{settings.path}{version}, dtype {settings.dtype}, quantization {settings.quantization or 'none'}{options}"


def service_engine(
    name: ServedModelName, settings: EngineSettings, on_failure: OnFailure
) -> AnswersRequests[EngineWork]:
    """What answers a job's requests with the replicas of a service."""
    del on_failure  # a service that is lost shows in the calls
    return ServiceEngine(serve.get_deployment_handle(name.model, app_name=name.service), settings)


class ServiceEngine:
    """Sends work to the replicas behind a handle."""

    memory = None

    def __init__(self, handle: DeploymentHandle[Any], settings: EngineSettings) -> None:
        self._handle, self._settings = handle, settings
        self._slots = asyncio.Semaphore(CHUNKS_IN_FLIGHT)

    async def compute(self, work: EngineWork, on_answered: OnAnswered = unheard) -> list[EngineAnswer]:
        """Answers each request of `work`, in its order.

        Raises:
            EngineError: no replica has answered for `PATIENCE_S`.
        """
        answers = await asyncio.gather(*(self._answer(chunk, on_answered) for chunk in chunks(work, CHUNK_ROWS)))
        return [answer for chunk in answers for answer in chunk]

    async def _answer(self, chunk: EngineWork, on_answered: OnAnswered) -> list[EngineAnswer]:
        async with self._slots:
            give_up = asyncio.get_running_loop().time() + PATIENCE_S
            for attempt in itertools.count():
                named = replace(chunk, name=f"{chunk.name}/{attempt}")  # an earlier attempt may still be about
                try:
                    found: list[EngineAnswer] = await self._handle.compute.remote(named, self._settings.asked)
                except (RayError, RayServeException, EngineError) as error:
                    if _is_final(error) or asyncio.get_running_loop().time() > give_up:
                        raise EngineError(f"the service did not answer {chunk.name}: {error}") from error
                    logger.info("%s is sent again: %s", chunk.name, type(error).__name__)
                    await asyncio.sleep(RETRY_S)
                else:
                    on_answered(len(found))
                    return found
            raise AssertionError("the attempts are without end")


def _is_final(error: Exception) -> bool:
    """Whether another replica would say the same."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, ModelError) and not isinstance(cause, EngineError)


def chunks(work: EngineWork, size: int) -> Sequence[EngineWork]:
    """`work` in parts of at most `size` requests, each with a name of its own."""
    return [
        work.part(f"{work.name}/{start}", start, min(start + size, work.num_requests))
        for start in range(0, work.num_requests, size)
    ]
