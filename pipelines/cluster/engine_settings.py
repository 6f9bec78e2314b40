"""What an engine process is made from, for a job and for a service."""

from actors.work import Asked, EngineSettings, ReplicaOptions
from models.config.option import declared
from pipelines.cluster.connect import engine_threads
from pipelines.job import EngineSpec, ModelSpec


def engine_settings(
    model: ModelSpec,
    engine: EngineSpec,
    asked: Asked = Asked(),  # noqa: B008 - frozen
    *,
    dedup: bool = False,
) -> EngineSettings:
    """The settings of an engine of this checkpoint and these sizes, which have the same names everywhere."""
    return EngineSettings(
        path=model.path,
        storage_options=model.storage_options,
        version=model.version,
        dtype=model.dtype,
        quantization=model.quantization,
        model_options=model.options,
        asked=asked,
        dedup=dedup,
        num_threads=engine_threads(engine),
        **{name: getattr(engine, name) for name in declared(ReplicaOptions)},
    )
