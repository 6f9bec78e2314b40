"""How often a trained network is right on examples it has never seen."""

from collections.abc import Sequence

import torch

from jobs.demo.examples import IGNORED, Example
from jobs.demo.network import Network
from jobs.demo.training import make_batches, mask_padding, pad


@torch.no_grad()
def accuracy(network: Network, examples: Sequence[Example], *, pad_id: int) -> float:
    """The share of examples whose every target is the likeliest class.

    For a causal network that is the share of prompts that greedy decoding answers exactly: as long as each likeliest token is the
    right one, decoding walks through the very tokens that are scored here.
    """
    network.eval()
    num_right = 0
    for batch in make_batches(examples, seed=0):
        logits = network(pad([example.ids for example in batch], value=pad_id))
        if network.head == "question-answering":
            places = mask_padding(logits, batch).argmax(dim=1)  # [B, 2]
            is_right = (places == torch.tensor([example.targets for example in batch])).all(dim=1)
        else:
            targets = pad([example.targets for example in batch], value=IGNORED)  # [B, T]
            is_right = ((logits.argmax(dim=-1) == targets) | (targets == IGNORED)).all(dim=1)
        num_right += int(is_right.sum())
    return num_right / len(examples)
