"""A rank other than 0: computes its part of whatever rank 0 computes.

python -m models.engine.follower RANK SIZE HOST:PORT < WORK      a rank in a process of its own
"""

import pickle
import sys

import torch

from models.calls import CallReceiver
from models.choices import choose_device
from models.engine.runner import Runner
from models.engine.scorer import Scorer
from models.engine.shards import ShardWork
from models.parallel import TensorParallel
from models.registry import load_model
from models.rendezvous import join, leave


def follow(work: ShardWork, rank: int, size: int, address: str) -> None:
    """Joins rank 0 at `address`, loads this rank's part of the model and computes what rank 0 calls for, until that says
    that it is done.

    Raises:
        ModelError: the checkpoint cannot be loaded, or rank 0 is gone.
        RuntimeError: another rank is gone.
    """
    torch.set_num_threads(work.num_threads)
    tp = join(rank, size, address, device=choose_device(work.load["device"]))
    try:
        _compute(work, tp)
    finally:
        leave(tp)


def _compute(work: ShardWork, tp: TensorParallel) -> None:
    assert isinstance(tp.calls, CallReceiver)
    loaded = load_model(**work.load, tp=tp)
    runner = None if work.options is None else Runner(loaded, work.options)
    scorer = Scorer(loaded, max_num_batched_tokens=work.max_num_scored_tokens)
    while (call := tp.calls.receive()) is not None:
        target = runner if call.method == "execute" else scorer
        getattr(target, call.method)(*call.arguments)


def main() -> None:
    """The process that `LocalShards` starts; its `ShardWork` comes on stdin."""
    rank, size, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    work: ShardWork = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from the process that started this one
    if choose_device(work.load["device"]).type == "cuda":
        torch.cuda.set_device(rank)
    follow(work, rank, size, address)


if __name__ == "__main__":
    main()
