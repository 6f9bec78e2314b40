"""The training loop learns, in batches of bounded size, the same way each time."""

from itertools import count
from random import Random

import pytest
import torch

from jobs.demo.accuracy import accuracy
from jobs.demo.examples import IGNORED, Example
from jobs.demo.network import Network, Shape, TaskHead
from jobs.demo.training import BATCH_TOKENS, Course, batch_loss, make_batches, train

SHAPE = Shape(
    vocab_size=16,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=32,
)
HEADS: list[TaskHead] = ["causal", "sequence-classification", "token-classification", "question-answering"]
PAD = 15


def example(head: TaskHead, number: int) -> Example:
    """Something a network of one layer can learn: which token stands first, or where the token 7 stands."""
    rng = Random(number)
    ids = [rng.randrange(7) for _ in range(rng.randint(4, 8))]
    place = rng.randrange(1, len(ids))
    match head:
        case "question-answering":
            ids[place] = 7
            return Example(ids=ids, targets=[place, place])
        case "token-classification":
            return Example(ids=ids, targets=[token % 3 for token in ids])
        case _:
            return Example(ids=ids, targets=[IGNORED] * (len(ids) - 1) + [ids[-1] % 3])


@pytest.mark.parametrize("head", HEADS)
def test_training_learns_what_there_is_to_learn(head: TaskHead) -> None:
    torch.manual_seed(0)
    network = Network(SHAPE, head, num_labels=3)
    train(network, (example(head, number) for number in count(100)), Course(num_batches=40), pad_id=PAD, seed=0)
    held_out = [example(head, number) for number in range(100)]
    assert accuracy(network, held_out, pad_id=PAD) > 0.9


def test_training_twice_gives_the_same_weights() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        network = Network(SHAPE, "causal")
        train(network, (example("causal", n) for n in count()), Course(num_batches=5), pad_id=PAD, seed=0)
        weights.append(network.body.embed_tokens.weight.detach())
    assert torch.equal(*weights)


def test_batches_hold_every_example_once_and_are_bounded() -> None:
    examples = [Example(ids=[number] * Random(number).randint(1, 900), targets=[]) for number in range(1500)]
    batches = list(make_batches(examples, seed=1))
    assert sorted(example.ids[0] for batch in batches for example in batch) == list(range(1500))
    assert all(len(batch) * max(len(example.ids) for example in batch) <= BATCH_TOKENS for batch in batches)


def test_padding_is_never_the_answer() -> None:
    network = Network(SHAPE, "question-answering")
    short, long = Example(ids=[1, 2], targets=[1, 1]), Example(ids=[1] * 20, targets=[0, 0])
    alone = [batch_loss(network, [each], pad_id=PAD) for each in (short, long)]
    torch.testing.assert_close(batch_loss(network, [short, long], pad_id=PAD), sum(alone) / 2)


def test_rate_rises_then_falls() -> None:
    course = Course(num_batches=100, warmup_batches=10)
    shares = [course.share_of_rate(batch) for batch in range(100)]
    assert shares[:10] == sorted(shares[:10])
    assert shares[9] == 1.0
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] < 0.05
