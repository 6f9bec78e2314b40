"""What an engine process is made from, for a job and for a service."""

from dataclasses import replace

from actors.work import EngineSettings, ReplicaOptions
from models.config.option import declared
from models.engine.scheduling.request import SamplingParams
from pipelines.cluster.connect import engine_threads
from pipelines.job import EngineSpec, Job, ModelSpec


def engine_settings(
    model: ModelSpec,
    engine: EngineSpec,
    *,
    sampling: SamplingParams | None = None,
    labels: tuple[tuple[int, ...], ...] = (),
) -> EngineSettings:
    """The settings of an engine of this checkpoint and these sizes, which have the same names everywhere."""
    return EngineSettings(
        path=model.path,
        storage_options=model.storage_options,
        version=model.version,
        dtype=model.dtype,
        quantization=model.quantization,
        model_options=model.options,
        sampling=sampling,
        labels=labels,
        num_threads=engine_threads(engine),
        **{name: getattr(engine, name) for name in declared(ReplicaOptions)},
    )


def job_settings(job: Job, label_ids: tuple[tuple[int, ...], ...]) -> EngineSettings:
    """The settings of an engine of this job. A row's draws are keyed by the row, so the sampling parameters carry no seed."""
    sampling = None if job.task.sampling is None else replace(job.task.sampling, seed=None)
    return engine_settings(job.model, job.engine, sampling=sampling, labels=label_ids)
