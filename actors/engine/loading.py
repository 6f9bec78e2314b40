"""An engine or a scorer made as `EngineSettings` say, from a checkpoint that is on this machine."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from actors.work import EngineSettings
from models import Engine, Scorer
from models.engine.shard_processes import StartShards
from models.engine.watchdog import Watchdog


def engine_of(
    settings: EngineSettings, folder: Path, start: StartShards, launcher: ThreadPoolExecutor | None = None
) -> Engine:
    """What generates, with the other shards of its model made by `start`; in `launcher`, where that is given.

    Raises:
        ModelError: the checkpoint or a setting cannot be used.
    """
    return Engine.from_pretrained(
        folder,
        dtype=settings.dtype,
        quantization=settings.quantization,
        model_options=settings.model_options,
        options=settings.options,
        start=start,
        launcher=launcher,
    )


def scorer_of(settings: EngineSettings, folder: Path, start: StartShards, watchdog: Watchdog | None) -> Scorer:
    """What answers with one pass a sequence, with the other shards of its model made by `start`. To be called in the thread that is to
    compute.

    Raises:
        ModelError: the checkpoint or a setting cannot be used.
    """
    return Scorer.from_pretrained(
        folder,
        dtype=settings.dtype,
        quantization=settings.quantization,
        model_options=settings.model_options,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        max_model_len=settings.max_model_len,
        tensor_parallel_size=settings.tensor_parallel_size,
        start=start,
        watchdog=watchdog,
    )
