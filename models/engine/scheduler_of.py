"""The scheduler of a loaded model: its pool, and the states that are kept for prompts to come, as
large as the runner's."""

from models.engine.options import BATCH_WINDOW, EngineOptions
from models.engine.runner import Runner
from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.scheduler import Scheduler
from models.engine.scheduling.snapshots import Snapshots
from models.engine.scheduling.states import KeptStates
from models.layers.mamba.plan import chunk_width
from models.loading.load import LoadedModel

MIN_DENSITY = 0.6  # of the pool's used part, where attention walks it as a whole


def scheduler_of(loaded: LoadedModel, runner: Runner, options: EngineOptions) -> Scheduler:
    """A scheduler whose plans that runner can carry out."""
    rope, states = loaded.config.rope.regimes, _states_of(loaded, runner)
    pool = BlockPool(
        runner.num_blocks,
        runner.block_size,
        min_density=MIN_DENSITY if loaded.backend.reads_whole_blocks else 0.0,
        shares_prefixes=loaded.config.mamba is None or states is not None,
        on_forget=None if states is None else states.snapshots.forget,
    )
    return Scheduler(
        pool,
        max_num_seqs=runner.max_num_seqs,
        max_num_batched_tokens=runner.max_num_batched_tokens,
        online_batched_tokens=options.online_budget(runner.max_num_batched_tokens, runner.max_num_seqs),
        max_model_len=loaded.max_model_len,
        window=loaded.longest_window,
        regime=None if rope.kind == "fixed" else rope.of,
        states=states,
        batch_window=BATCH_WINDOW * runner.max_num_seqs,
    )


def _states_of(loaded: LoadedModel, runner: Runner) -> KeptStates | None:
    """What keeps a recurrent network's states for prompts to come; None of another network, or
    where there is no room for any."""
    if loaded.config.mamba is None or not runner.num_snapshots:
        return None
    return KeptStates(
        Snapshots(runner.num_snapshots),
        block_size=runner.block_size,
        chunk=chunk_width(loaded.config.mamba),
        stride=runner.state_stride,
    )
