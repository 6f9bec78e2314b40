"""What an engine process is made from, for a job and for a service."""

from dataclasses import replace

from actors.work import EngineSettings
from models.engine.request import SamplingParams
from pipelines.cluster import engine_threads
from pipelines.job import EngineSpec, GenerateTask, Job, ModelSpec


def engine_settings(
    model: ModelSpec,
    engine: EngineSpec,
    *,
    sampling: SamplingParams | None = None,
    labels: tuple[tuple[int, ...], ...] = (),
) -> EngineSettings:
    """The settings of an engine of this checkpoint and these sizes."""
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
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        online_batched_tokens=engine.online_batched_tokens,
        block_size=engine.block_size,
        cache_bytes=engine.cache_bytes,
        gpu_memory_fraction=engine.gpu_memory_fraction,
        tensor_parallel_size=engine.tensor_parallel_size,
        step_timeout_s=engine.step_timeout_s,
    )


def job_settings(job: Job, label_ids: tuple[tuple[int, ...], ...]) -> EngineSettings:
    """The settings of an engine of this job. A row's draws are keyed by the row, so the sampling parameters carry no seed."""
    sampling = replace(job.task.sampling, seed=None) if isinstance(job.task, GenerateTask) else None
    return engine_settings(job.model, job.engine, sampling=sampling, labels=label_ids)
