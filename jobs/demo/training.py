"""The training loop: examples in, a trained network out. It knows examples and networks, not tickets."""

import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jobs.demo.examples import IGNORED, Example
from jobs.demo.network import Network

logger = logging.getLogger(__name__)

POOL_EXAMPLES = 1024
BATCH_TOKENS = 2048
REPORT_BATCHES = 100
FINAL_RATE = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """One stretch of training: `num_batches` batches, the rate rising at first and then falling
    along a cosine.

    The layers' matrices are trained by Muon at `matrix_rate`, which learns to copy in half the batches AdamW needs, and everything
    else by AdamW at `other_rate`.
    """

    num_batches: int
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    warmup_batches: int = 50

    def share_of_rate(self, batch: int) -> float:
        """What part of its full rate an optimiser works at in batch `batch`, counted from 0."""
        if batch < self.warmup_batches:
            return (batch + 1) / self.warmup_batches
        done = (batch - self.warmup_batches) / max(1, self.num_batches - self.warmup_batches)
        return FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * done)) / 2


def train(network: Network, examples: Iterable[Example], course: Course, *, pad_id: int, seed: int) -> None:
    """Trains `network` in place on as many examples as the course has room for."""
    optimisers = _optimisers(network, course)
    losses: list[float] = []
    started = time.monotonic()
    network.train()
    for number, batch in enumerate(islice(make_batches(examples, seed=seed), course.num_batches)):
        loss = batch_loss(network, batch, pad_id=pad_id)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimiser, rate in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * course.share_of_rate(number)
            optimiser.step()
            optimiser.zero_grad()
        losses.append(loss.item())
        if len(losses) == REPORT_BATCHES:
            mean, seconds = sum(losses) / len(losses), time.monotonic() - started
            logger.info("%d of %d batches in %.0f s, loss %.4f", number + 1, course.num_batches, seconds, mean)
            losses.clear()


def make_batches(examples: Iterable[Example], *, seed: int) -> Iterator[list[Example]]:
    """Batches of at most BATCH_TOKENS tokens (or one example) and of like lengths, in random order within each pool of examples."""
    rng, source = Random(seed), iter(examples)
    while pool := sorted(islice(source, POOL_EXAMPLES), key=lambda example: len(example.ids)):
        batches: list[list[Example]] = [[]]
        for example in pool:
            if batches[-1] and (len(batches[-1]) + 1) * len(example.ids) > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(example)
        rng.shuffle(batches)
        yield from batches


def batch_loss(network: Network, batch: Sequence[Example], *, pad_id: int) -> Tensor:
    """Mean cross-entropy over the targets of a batch; for question answering, of start and end over the positions."""
    hidden = network.body(pad([example.ids for example in batch], value=pad_id))  # [B, T, D]
    if network.head == "question-answering":
        logits = mask_padding(network.project(hidden), batch)  # [B, T, 2]
        return F.cross_entropy(logits, torch.tensor([example.targets for example in batch]))
    targets = pad([example.targets for example in batch], value=IGNORED)  # [B, T]
    is_asked = targets != IGNORED
    return F.cross_entropy(network.project(hidden[is_asked]), targets[is_asked])


def mask_padding(logits: Tensor, batch: Sequence[Example]) -> Tensor:
    """Logits [B, T, 2] with padding out of the running."""
    lengths = torch.tensor([len(example.ids) for example in batch])
    is_padding = torch.arange(logits.shape[1]) >= lengths[:, None]  # [B, T]
    return logits.masked_fill(is_padding[:, :, None], -torch.inf)


def pad(rows: Sequence[Sequence[int]], *, value: int) -> Tensor:
    """Ragged rows as one tensor [B, T], filled up on the right."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def _optimisers(network: Network, course: Course) -> list[tuple[torch.optim.Optimizer, float]]:
    """Each optimiser with its full rate."""
    matrices = [weight for name, weight in network.named_parameters() if ".layers." in name and weight.ndim == 2]
    ids = set(map(id, matrices))
    others = [weight for weight in network.parameters() if id(weight) not in ids]
    return [
        (torch.optim.Muon(matrices, lr=0.0, weight_decay=0.01), course.matrix_rate),
        (torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0), course.other_rate),
    ]
