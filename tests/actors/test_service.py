"""The Serve application of a service, before anything is started."""

import pytest

from actors.work import INGRESS, EngineSettings


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # ray.serve.schema, when imported
def test_a_model_may_be_called_http() -> None:
    from ray.serve._private.build_app import build_app

    from actors.service import ModelDeployment, service_app

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
