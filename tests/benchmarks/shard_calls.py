"""What it costs that a step's plan reaches the other shards: our calls over sockets next to torch's broadcast of an object.

    python tests/benchmarks/shard_calls.py [--size 2] [--steps 500]

Each step ends with an all_reduce, as a model's does, and the time counts from rank 0's call to the moment at which a follower
has the plan in hand (one clock for all processes of a machine). The plan is that of 64 decoding sequences.
"""

import argparse
import json
import pickle
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist

from models.engine.scheduling.plan import LAST_TOKEN, StepPlan
from models.parallel.calls import CallReceiver
from models.parallel.rendezvous import Invitation, Meeting, join, leave

CPU = torch.device("cpu")
NUM_SEQS = 64
WARM_UP = 50


def plan_of(num_seqs: int) -> StepPlan:
    """A step in which every sequence decodes."""
    return StepPlan(
        slots=list(range(num_seqs)),
        starts=[100 + n for n in range(num_seqs)],
        counts=[1] * num_seqs,
        token_ids=[LAST_TOKEN] * num_seqs,
        is_sampling=[True] * num_seqs,
    )


def follow(invitation: Invitation, steps: int) -> None:
    """A follower: prints the microseconds of each way as JSON."""
    tp = join(invitation, device=CPU)
    assert isinstance(tp.calls, CallReceiver)
    x = torch.zeros(1)
    found: dict[str, list[float]] = {"sockets": [], "broadcast": []}
    for _ in range(steps):
        dist.all_reduce(x)
        call = tp.calls.receive()
        assert call is not None
        found["sockets"].append((time.monotonic_ns() - call.arguments[1]) / 1e3)
        dist.all_reduce(x)
        objects = [None]
        dist.broadcast_object_list(objects, src=0)
        sent: tuple[StepPlan, int] = objects[0]  # type: ignore[assignment]
        found["broadcast"].append((time.monotonic_ns() - sent[1]) / 1e3)
    leave(tp)
    sys.stdout.write(json.dumps({name: times[WARM_UP:] for name, times in found.items()}))


def main() -> None:
    """Rank 0, which starts the others and prints the medians of the slowest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--follow", action="store_true", help="as the rank that stdin invites")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.follow:
        follow(pickle.load(sys.stdin.buffer), given.steps)
        return
    meeting = Meeting.open("127.0.0.1", given.size)
    command = [sys.executable, __file__, "--steps", str(given.steps), "--follow"]
    followers = []
    for rank in range(1, given.size):
        follower = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert follower.stdin is not None
        pickle.dump(meeting.invitation(rank), follower.stdin)
        follower.stdin.flush()
        followers.append(follower)
    tp = meeting.join(CPU, check=lambda: None)
    plan, x = plan_of(NUM_SEQS), torch.zeros(1)
    for _ in range(given.steps):
        dist.all_reduce(x)
        tp.call("execute", plan, time.monotonic_ns())
        dist.all_reduce(x)
        dist.broadcast_object_list([(plan, time.monotonic_ns())], src=0)
    leave(tp)
    outputs = [json.loads(follower.communicate()[0]) for follower in followers]
    for name in ("sockets", "broadcast"):
        medians = [statistics.median(output[name]) for output in outputs]
        sys.stdout.write(
            f"{name}: {max(medians):.0f} us from rank 0's call to the plan in a follower's hand (median of {given.steps})\n"
        )


if __name__ == "__main__":
    main()
