"""A small tokenizer of the demo's kind, trained in a second, and one thread for networks too small for two."""

from collections.abc import Iterator

import pytest
import torch
from tokenizers import Tokenizer

from jobs.demo.corpus import make_tickets
from jobs.demo.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer((ticket.body for ticket in make_tickets(300, seed=3)), vocab_size=500)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
