"""What an engine process is made from, for a job and for a service."""

from dataclasses import fields, replace

from actors.work import EngineSettings
from models.engine.options import EngineOptions
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
        mamba_dt_clamp=model.mamba_dt_clamp,
        sampling=sampling,
        labels=labels,
        num_threads=engine_threads(engine),
        **{size.name: getattr(engine, size.name) for size in fields(EngineOptions)},
        step_timeout_s=engine.step_timeout_s,
    )


def job_settings(job: Job, label_ids: tuple[tuple[int, ...], ...]) -> EngineSettings:
    """The settings of an engine of this job. A row's draws are keyed by the row, so the sampling parameters carry no seed."""
    sampling = None if job.task.sampling is None else replace(job.task.sampling, seed=None)
    return engine_settings(job.model, job.engine, sampling=sampling, labels=label_ids)
