"""How likely a causal model finds each of several given answers, with one pass over a prompt and
the answers behind it.

An answer's first token is scored by the prompt's own last logits; the further ones form a tree of
branches behind the prompt, in the same pass. Recurrent layers take a second pass, in which every
longer answer continues a copy of the prompt's states. Where the rotary embedding depends on the
length, the longest answer decides for all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.engine.scoring.label_tree import Branch, shared_branches, single_branches
from models.engine.scoring.prefix_cache import PrefixCache
from models.engine.scoring.segments import Passes, Segment
from models.engine.scoring.walk import Leaf, WalkedSequence
from models.layers.attention.attention import IntArray
from models.loading.load import LoadedModel

LOGIT_ROWS = 64  # rows of vocabulary-wide logits that exist at a time


Labels = Sequence[Sequence[int]]
"""Token ids of answers that are scored together, none empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _LabelSet:
    """The labels behind a prompt: the first token of each with its number, the branches of the
    further ones, and how long the longest label is."""

    firsts: list[tuple[int, int]]
    branches: list[Branch]
    longest: int

    @property
    def num_more(self) -> int:
        return sum(len(branch.tokens) for branch in self.branches)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scoring:
    """A segment of a prompt, and what is scored after its tokens, or after its last one alone if
    that is no branch. `first` is where the scores of the prompt's labels begin among those of the
    pack."""

    segment: Segment
    labels: _LabelSet
    first: int
    branch: Branch | None


class LabelScorer:
    """Scores labels after many prompts, packed by a budget of tokens."""

    def __init__(
        self,
        loaded: LoadedModel,
        sets: Sequence[Labels],
        numbers: Sequence[int],
        *,
        passes: Passes,
        cache: PrefixCache,
        budget: int,
    ) -> None:
        """Behind prompt i the labels `sets[numbers[i]]` are scored."""
        self._loaded, self._passes, self._cache, self._budget = loaded, passes, cache, budget
        self._sets, self._numbers = [self._label_set(labels) for labels in sets], numbers

    def _label_set(self, labels: Labels) -> _LabelSet:
        branches = single_branches(labels)
        if not self._cache.has_states:
            shared = shared_branches(labels)
            if (
                sum(len(branch.tokens) for branch in shared) <= self._budget
            ):  # else they would be held over several passes
                branches = shared
        firsts = [(label[0], number) for number, label in enumerate(labels)]
        return _LabelSet(firsts=firsts, branches=branches, longest=max(map(len, labels)))

    @property
    def longest(self) -> int:
        """Tokens of the longest label of all."""
        return max((labels.longest for labels in self._sets), default=0)

    @property
    def slots_each(self) -> int:
        """Slots of a prompt and its longer labels, at least."""
        return 2 if any(labels.branches for labels in self._sets) else 1

    def asked(self, prompts: Sequence[Sequence[int]]) -> list[WalkedSequence]:
        """All prompts, as a walk takes them."""
        rope = self._loaded.config.rope.regimes
        pairs = zip(prompts, (self._sets[number] for number in self._numbers), strict=True)
        return [
            WalkedSequence(
                tokens=np.array(prompt, dtype=np.int64),
                regime=rope.of(len(prompt), len(prompt) + labels.longest - 1),
                num_more=labels.num_more,
            )
            for prompt, labels in pairs
        ]

    def score(self, leaves: Sequence[Leaf], asked: Sequence[WalkedSequence]) -> list[torch.Tensor]:
        """Log p(label | prompt), the sum over the label's tokens, for each prompt of one pack:
        [labels] float32 on the CPU."""
        sizes = [len(self._sets[self._numbers[leaf.index]].firsts) for leaf in leaves]
        total = torch.zeros(sum(sizes))
        ends = np.cumsum(sizes).tolist()
        prompts = [
            self._prompt(leaf, asked[leaf.index], end - size)
            for leaf, size, end in zip(leaves, sizes, ends, strict=True)
        ]
        if all(one.segment.parent is None and not one.labels.branches for one in prompts):
            hidden = self._passes.fresh([one.segment for one in prompts], _rows(prompts))
            self._add(total, hidden, prompts)
            return list(total.split(sizes))
        for scorings in self._in_passes(prompts):
            hidden = self._passes.kept([one.segment for one in scorings], _rows(scorings))
            self._add(total, hidden, scorings)
            self._release(scorings)
        for prompt in prompts:
            self._passes.release(prompt.segment)
        return list(total.split(sizes))

    def _prompt(self, leaf: Leaf, asked: WalkedSequence, first: int) -> _Scoring:
        labels = self._sets[self._numbers[leaf.index]]
        return _Scoring(segment=leaf.segment(asked), labels=labels, first=first, branch=None)

    def _in_passes(self, prompts: list[_Scoring]) -> Iterator[list[_Scoring]]:
        """The prompts and all their branches, or where that is too much or states stand between,
        the prompts and then a pass full of branches at a time. Branches that have others behind
        them are few enough for one."""
        branches = self._behind(prompts)
        if not self._cache.has_states and _num_tokens(prompts) + _num_tokens(branches) <= self._budget:
            yield prompts + branches
            return
        yield prompts
        part: list[_Scoring] = []
        num_tokens = 0
        for one in branches:
            has_slot = not self._cache.has_states or len(part) < self._cache.free_slots
            if part and not (num_tokens + one.segment.tokens.size <= self._budget and has_slot):
                yield part
                part, num_tokens = [], 0
            part.append(one)
            num_tokens += int(one.segment.tokens.size)
        if part:
            yield part

    def _behind(self, prompts: Sequence[_Scoring]) -> list[_Scoring]:
        """The branches of all prompts. Single tokens first where there are states, as a layout
        wants them."""
        found = []
        for prompt in prompts:
            segments: list[Segment] = []
            for branch in prompt.labels.branches:
                parent = prompt.segment if branch.parent is None else segments[branch.parent]
                tokens = np.array(branch.tokens, dtype=np.int64)
                segments.append(
                    Segment(tokens=tokens, parent=parent, shared=prompt.segment, regime=prompt.segment.regime)
                )
                found.append(replace(prompt, segment=segments[-1], branch=branch))
        if self._cache.has_states:
            found.sort(key=lambda one: one.segment.tokens.size > 1)
        return found

    def _release(self, scorings: Sequence[_Scoring]) -> None:
        for one in scorings:
            if one.branch is not None:
                self._passes.release(one.segment)

    def _add(self, total: torch.Tensor, hidden: torch.Tensor, scorings: Sequence[_Scoring]) -> None:
        """Adds to `total` [labels of all prompts] what is scored after the tokens of a pass, whose
        hidden states are [R, H]."""
        places, targets, labels = [], [], []
        before = 0
        for one in scorings:
            scored = [(0, *each) for each in one.labels.firsts] if one.branch is None else one.branch.scored
            for place, target, label in scored:
                places.append(before + place)
                targets.append(target)
                labels.append(one.first + label)
            before += 1 if one.branch is None else len(one.branch.tokens)
        logprobs = self._logprobs(hidden, np.array(places), np.array(targets))
        total.index_put_((torch.tensor(labels),), logprobs, accumulate=True)

    def _logprobs(self, hidden: torch.Tensor, rows: IntArray, targets: IntArray) -> torch.Tensor:
        """Log softmax of the logits of hidden[rows[i]] at targets[i], float32 on the CPU. `rows` do not descend."""
        parts: list[torch.Tensor] = []
        for start in range(0, hidden.shape[0], LOGIT_ROWS):
            logits = self._loaded.model.logits(hidden[start : start + LOGIT_ROWS]).float()
            mine = (rows >= start) & (rows < start + LOGIT_ROWS)
            row = torch.from_numpy(rows[mine] - start).to(logits.device)
            column = torch.from_numpy(targets[mine]).to(logits.device)
            parts.append((logits[row, column] - torch.logsumexp(logits, dim=-1)[row]).cpu())
        return torch.cat(parts)


def _num_tokens(scorings: Sequence[_Scoring]) -> int:
    return sum(int(one.segment.tokens.size) for one in scorings)


def _rows(scorings: Sequence[_Scoring]) -> IntArray:
    """The packed tokens after which something is scored."""
    rows: list[int] = []
    first = 0
    for one in scorings:
        after = first + int(one.segment.tokens.size)
        rows.extend(range(first if one.branch is not None else after - 1, after))
        first = after
    return np.array(rows)
