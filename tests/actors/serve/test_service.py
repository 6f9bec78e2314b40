"""The Serve application of a service, before anything is started."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors.work import INGRESS, EngineSettings
from models.engine.scheduling.stats import EngineStats, PriorityStats


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # ray.serve.schema, when imported
def test_a_model_may_be_called_http() -> None:
    from ray.serve._private.build_app import build_app

    from actors.serve.service import ModelDeployment, service_app

    model = ModelDeployment(
        name="http",
        settings=EngineSettings(path="nowhere"),
        min_replicas=1,
        max_replicas=1,
        num_cpus=1.0,
        num_gpus=0.0,
        packing="STRICT_PACK",
    )
    built = build_app(service_app([model], keys_file=None), name="tests")
    assert [each.name for each in built.deployments] == ["http", INGRESS]
    assert built.ingress_deployment_name == INGRESS


def test_what_a_replaced_replica_did_stays_counted() -> None:
    from actors.serve.service import RemoteModel

    def stats(engine_id: str, num_tokens: int) -> EngineStats:
        batch = PriorityStats(num_waiting=1, num_running=2, num_prompt_tokens=1, num_generated_tokens=num_tokens)
        return EngineStats(by_priority={"batch": batch}, num_blocks=50, num_blocks_held=7, engine_id=engine_id)

    asked = iter([[stats("a", 10), stats("b", 20)], [stats("b", 25), stats("c", 3)]])

    async def results() -> list[EngineStats]:
        return next(asked)

    handle: Any = SimpleNamespace(broadcast=lambda _: SimpleNamespace(results_async=results))
    model = RemoteModel(handle)
    assert asyncio.run(model.stats()).by_priority["batch"].num_generated_tokens == 30
    later = asyncio.run(model.stats())
    batch = PriorityStats(num_waiting=2, num_running=4, num_prompt_tokens=3, num_generated_tokens=38)
    assert later == EngineStats(by_priority={"batch": batch}, num_blocks=100, num_blocks_held=14)
