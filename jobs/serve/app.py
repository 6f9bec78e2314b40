"""The Serve application of a service spec, as `serveConfigV2` names it: `import_path: jobs.serve.app:build`."""

from typing import Any

from ray.serve import Application

from actors.http.security import check_listen
from actors.serve.service import ModelDeployment, service_app
from jobs.errors import UsageError
from jobs.serve.spec import ServiceSpec, service_from
from pipelines.cluster.connect import engine_cpus, nodes, packing_on
from pipelines.cluster.engine_settings import engine_settings


def build(args: dict[str, Any]) -> Application:
    """The application of `args["spec"]`, a service spec as a mapping; nothing is loaded yet.

    Raises:
        UsageError: there is no spec, or something beside it.
        SpecError: with every problem found, one per line.
        ListenError: without keys it would listen on a network.
    """
    if set(args) != {"spec"} or not isinstance(args["spec"], dict):
        raise UsageError(
            f"args must be a mapping with spec, a service spec, and nothing else; it has {', '.join(args) or 'nothing'}"
        )
    spec = service_from(args["spec"]).spec
    check_listen(spec.host, has_keys=spec.keys_file is not None)
    return application(spec)


def application(spec: ServiceSpec) -> Application:
    """The application of a spec, for the cluster that this process is connected to. All its replicas, those of later too, load the
    versions of the checkpoints that are there now.

    Raises:
        CheckpointError: a checkpoint that is elsewhere cannot be read.
    """
    found = nodes()
    has_gpus = any(node.get("GPU", 0.0) > 0 for node in found)
    models = [
        ModelDeployment(
            name=model.name,
            settings=engine_settings(model.model.pinned(), model.engine),
            min_replicas=model.engine.replicas,
            max_replicas=model.engine.max_replicas or model.engine.replicas,
            num_cpus=engine_cpus(model.engine),
            num_gpus=1.0 if has_gpus else 0.0,
            packing=packing_on(model.engine, found),
        )
        for model in spec.models
    ]
    return service_app(models, keys_file=spec.keys_file)
