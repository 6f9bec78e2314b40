"""A rank other than 0: computes its part of whatever rank 0 computes.

python -m models.engine.follower RANK SIZE HOST:PORT < WORK      a rank in a process of its own
"""

import pickle
import sys

import torch

from models.engine.runner import Runner
from models.engine.scorer import Scorer
from models.engine.shards import ShardWork
from models.parallel import TensorParallel, join, leave
from models.registry import choose_device, load_model


def follow(work: ShardWork, tp: TensorParallel) -> None:
    """Loads this rank's part of the model and computes what rank 0 calls for, until that says that it is done.

    Raises:
        ModelError: the checkpoint cannot be loaded.
        RuntimeError: another rank is gone.
    """
    loaded = load_model(**work.load, tp=tp)
    target: Runner | Scorer
    if work.options is None:
        target = Scorer(loaded, max_num_batched_tokens=work.max_num_batched_tokens)
    else:
        target = Runner(loaded, work.options)
    while (call := tp.call()) is not None:
        getattr(target, call.method)(*call.arguments)


def main() -> None:
    """The process that `LocalShards` starts; its `ShardWork` comes on stdin."""
    rank, size, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    work: ShardWork = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from the process that started this one
    torch.set_num_threads(work.num_threads)
    device = choose_device(work.load["device"])
    if device.type == "cuda":
        torch.cuda.set_device(rank)
    tp = join(rank, size, address, device=device)
    try:
        follow(work, tp)
    finally:
        leave(tp)


if __name__ == "__main__":
    main()
