"""The tokens of labels behind a prompt, as branches: runs of tokens that are computed once, though
several labels begin with them.

The last token of a label is scored and never computed. A branch scores what labels have after each
of its tokens. Integers alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Scored = tuple[int, int, int]
"""A token's place in a branch, the token that a label has after it, and the label's number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """Tokens behind branch number `parent`, which comes before, or behind the prompt if that is
    None."""

    tokens: tuple[int, ...]
    parent: int | None
    scored: tuple[Scored, ...]


def shared_branches(labels: Sequence[Sequence[int]]) -> list[Branch]:
    """The fewest tokens: what labels begin with in common is there once."""
    follows: dict[tuple[int, ...], dict[int, None]] = {}
    scored: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for number, label in enumerate(labels):
        for length in range(1, len(label)):
            beginning = tuple(label[:length])
            follows.setdefault(beginning[:-1], {})[beginning[-1]] = None
            scored.setdefault(beginning, []).append((label[length], number))
    branches: list[Branch] = []
    todo: list[tuple[tuple[int, ...], int | None]] = [((token,), None) for token in reversed(follows.get((), {}))]
    while todo:
        beginning, parent = todo.pop()
        first = len(beginning) - 1
        while len(follows.get(beginning, ())) == 1:
            beginning = (*beginning, *follows[beginning])
        places = range(first, len(beginning))
        found = [(place - first, *one) for place in places for one in scored[beginning[: place + 1]]]
        branches.append(Branch(tokens=beginning[first:], parent=parent, scored=tuple(found)))
        number = len(branches) - 1
        todo.extend(((*beginning, token), number) for token in reversed(follows.get(beginning, {})))
    return branches


def single_branches(labels: Sequence[Sequence[int]]) -> list[Branch]:
    """One branch a label of more than one token, each behind the prompt; those of one token come
    first."""
    branches = [
        Branch(
            tokens=tuple(label[:-1]),
            parent=None,
            scored=tuple((place, token, number) for place, token in enumerate(label[1:])),
        )
        for number, label in enumerate(labels)
        if len(label) > 1
    ]
    return sorted(branches, key=lambda branch: len(branch.tokens) > 1)
