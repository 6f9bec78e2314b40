"""The order in which sequences that wait are begun.

    ordered(sequences, ...)     a depth-first walk of their prefix tree

Those that begin alike are neighbours, so that what they share is computed once and then found,
however small the cache is. Where a beginning branches, any order of its branches does that, so
prompts with much to compute and prompts with much to write take turns: a step has room for the
tokens of the one and for the sequences of the other. What is in the cache already comes first,
before it has to make room.

After GGR (arXiv:2403.05821, rows sorted by what they share) and BlendServe (arXiv:2411.16102, a
prefix tree whose branches are taken from two ends, by how much there is to compute for each token
to write). They sort all requests; here it is those of a bounded window, which the lane cuts.
"""

from collections import deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from models.engine.prefix_tree import PrefixNode, prefix_tree_of
from models.engine.scheduling.sequence import Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class _Branch:
    """A sequence, or all below a node, `first` of which came first: prompt tokens that are computed
    for it, what it shares counted once, and tokens that it may write. So many tokens of a sequence
    are in the cache, at most."""

    item: PrefixNode | int
    first: int
    num_prompt_tokens: int
    num_written: int
    num_found: int


def ordered(sequences: Seq[Sequence], *, block_size: int, num_found: Callable[[Sequence], int]) -> list[Sequence]:
    """The same sequences, in the order in which they are begun. What they share is counted in
    blocks of `block_size` tokens; `num_found` says how many of a sequence's first tokens are in the
    cache. Those with nothing to choose between stay in their order."""
    prompts = [np.array(sequence.request.token_ids, dtype=np.int64) for sequence in sequences]
    root = prefix_tree_of(prompts, grid=block_size, min_saved=1)
    branches = _branches(root, sequences, [num_found(sequence) for sequence in sequences])
    return [sequences[number] for number in _walk(root, branches)]


def _branches(root: PrefixNode, sequences: Seq[Sequence], num_found: Seq[int]) -> dict[int, list[_Branch]]:
    """What branches off each node, by its id, in the order in which it is walked."""
    top_down = [root]
    for node in top_down:
        top_down.extend(node.children)
    found: dict[int, list[_Branch]] = {}
    for node in reversed(top_down):
        leaves = [_leaf(number, node, sequences[number], num_found[number]) for number in node.leaves]
        inner = [_inner(child, node, found[id(child)]) for child in node.children]
        cached = [one for one in leaves + inner if one.num_found > node.length]
        others = [one for one in leaves + inner if one.num_found <= node.length]
        found[id(node)] = _mixed(cached) + _mixed(others)
    return found


def _leaf(number: int, node: PrefixNode, sequence: Sequence, num_found: int) -> _Branch:
    return _Branch(
        item=number,
        first=number,
        num_prompt_tokens=sequence.num_prompt - max(node.length, num_found),
        num_written=max(1, sequence.request.params.max_tokens),
        num_found=num_found,
    )


def _inner(child: PrefixNode, node: PrefixNode, branches: Seq[_Branch]) -> _Branch:
    num_found = max(branch.num_found for branch in branches)
    return _Branch(
        item=child,
        first=min(branch.first for branch in branches),
        num_prompt_tokens=max(0, child.length - max(node.length, num_found))
        + sum(branch.num_prompt_tokens for branch in branches),
        num_written=sum(branch.num_written for branch in branches),
        num_found=num_found,
    )


def _mixed(branches: Seq[_Branch]) -> list[_Branch]:
    """From the heavy end, those with most to compute for each token to write, as long as what was
    taken is no heavier than all together, else from the light one."""
    line = deque(sorted(branches, key=lambda one: (-one.num_prompt_tokens / one.num_written, one.first)))
    all_prompt, all_written = (sum(one.num_prompt_tokens for one in line), sum(one.num_written for one in line))
    taken: list[_Branch] = []
    prompt, written = 0, 0
    while line:
        is_light = prompt * all_written <= written * all_prompt
        one = line.popleft() if is_light else line.pop()
        prompt, written = prompt + one.num_prompt_tokens, written + one.num_written
        taken.append(one)
    return taken


def _walk(root: PrefixNode, branches: dict[int, list[_Branch]]) -> Iterator[int]:
    """The numbers of the sequences, depth first."""
    todo: list[PrefixNode | int] = [root]
    while todo:
        item = todo.pop()
        if isinstance(item, int):
            yield item
        else:
            todo.extend(branch.item for branch in reversed(branches[id(item)]))
