"""A small tokenizer of the demo's kind, trained in a second."""

import pytest
from tokenizers import Tokenizer

from jobs.demo.corpus import make_tickets
from jobs.demo.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer((ticket.body for ticket in make_tickets(300, seed=3)), vocab_size=500)
