"""A rank other than 0: computes its part of whatever rank 0 computes.

python -m models.engine.follower < WORK      a rank in a process of its own
"""

import pickle
import sys

import torch

from models.engine.runner import Runner
from models.engine.scoring.scorer import Scorer
from models.engine.shard_processes import ShardWork
from models.loading.choices import choose_device
from models.loading.load import load_model
from models.parallel.calls import CallReceiver
from models.parallel.rendezvous import Invitation, join, leave
from models.parallel.tensor_parallel import TensorParallel


def follow(work: ShardWork, invitation: Invitation) -> None:
    """Joins rank 0, loads this rank's part of the model and computes what rank 0 calls for, until that says
    that it is done.

    Raises:
        ModelError: the checkpoint cannot be loaded, or rank 0 is gone.
        RuntimeError: another rank is gone.
    """
    torch.set_num_threads(work.num_threads)
    tp = join(invitation, device=choose_device(work.load["device"]))
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
    """The process that `LocalShards` starts; its `ShardWork` and `Invitation` come on stdin, where nobody else reads."""
    given: tuple[ShardWork, Invitation] = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - from who started this
    work, invitation = given
    if choose_device(work.load["device"]).type == "cuda":
        torch.cuda.set_device(invitation.rank)
    follow(work, invitation)


if __name__ == "__main__":
    main()
