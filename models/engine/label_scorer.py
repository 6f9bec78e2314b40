"""How likely a causal model finds each of several given answers, with one prefill of the prompt for all of them.

An answer's first token is scored by the prompt's own last logits. For answers with further tokens the prompts of a pack
are prefilled into a scratch cache; then each of these answers is one short sequence that continues its prompt there.
Answers share the prompt's full blocks and get a copy of its last, partly filled one, and of its recurrent states. Where
the rotary embedding depends on the length, the longest answer decides for all.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from models.engine import caches
from models.engine.packing import batch_of
from models.layers.attention import IntArray, Layout
from models.layers.state import Cache, StateCache
from models.registry import LoadedModel

LOGIT_ROWS = 64  # rows of vocabulary-wide logits that exist at a time
CONTEXT_TOKENS = 1 << 17  # of prompts that labels look back at together, as some backends gather them for each
CACHE_PER_TOKEN = 4  # places of the scratch cache that may be reserved for each token of a pack's budget


class LabelScorer:
    """Scores the same labels (token id lists, none empty) after many prompts."""

    def __init__(self, loaded: LoadedModel, labels: Sequence[Sequence[int]]) -> None:
        self._loaded, self._labels = loaded, [list(label) for label in labels]
        self._long = [index for index, label in enumerate(self._labels) if len(label) > 1]
        self._num_more = sum(len(label) - 1 for label in self._labels)
        self._longest = max(len(label) for label in self._labels)
        self._block_size = loaded.backend.block_size
        self._specs = loaded.model.decoder.cache_specs
        self._state_bytes = caches.state_bytes(self._specs, loaded.dtype)
        self._caches: list[Cache] = []
        self._num_blocks = self._num_slots = 0

    def weight(self, num_prompt: int) -> int:
        """What a prompt of this many tokens takes of a pack's token budget, its labels and their cache included."""
        num_full, num_own = self._blocks_of(num_prompt)
        num_places = (num_full + num_own * len(self._long)) * self._block_size + self._places_of_states()
        return max(num_prompt + self._num_more, -(-num_places // CACHE_PER_TOKEN))

    def score(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Log p(label | prompt), the sum over the label's tokens, for one pack of prompts: [prompts, labels] float32
        on the CPU."""
        if not self._long:
            return self._prefill(prompts, None)
        tables = self._allocate(prompts)
        return self._prefill(prompts, tables) + self._continue(prompts, tables)

    def _blocks_of(self, num_prompt: int) -> tuple[int, int]:
        """Full blocks of a prompt, which its long labels share, and how many more each of these has of its own."""
        num_full = num_prompt // self._block_size if self._long else 0
        num_own = -(-(num_prompt + self._longest - 1) // self._block_size) - num_full if self._long else 0
        return num_full, num_own

    def _places_of_states(self) -> int:
        """How many tokens of cache take the room of one prompt's states, the copies for its long labels included."""
        if not self._long:
            return 0
        num_bytes = (1 + len(self._long)) * self._state_bytes
        return -(-num_bytes // max(1, caches.token_bytes(self._specs, self._loaded.dtype)))

    def _allocate(self, prompts: Sequence[Sequence[int]]) -> IntArray:
        """Block tables of every (prompt, long label) pair [N, long labels, blocks]; a prompt's own blocks are those of
        the first one."""
        sizes = [self._blocks_of(len(prompt)) for prompt in prompts]
        tables = np.zeros((len(prompts), len(self._long), max(map(sum, sizes))), dtype=np.int64)
        next_block = 0
        for index, (num_full, num_own) in enumerate(sizes):
            tables[index, :, :num_full] = np.arange(next_block, next_block + num_full)
            next_block += num_full
            own = np.arange(num_own * len(self._long)).reshape(len(self._long), num_own)
            tables[index, :, num_full : num_full + num_own] = next_block + own
            next_block += own.size
        self._reserve(next_block, len(prompts) * (1 + len(self._long)) if self._state_bytes else 0)
        return tables

    def _reserve(self, num_blocks: int, num_slots: int) -> None:
        """Makes the scratch cache large enough, and clears it."""
        if num_blocks > self._num_blocks or num_slots > self._num_slots:
            loaded = self._loaded
            num_blocks, num_slots = max(num_blocks, self._num_blocks), max(num_slots, self._num_slots)
            self._caches, self._num_blocks, self._num_slots = [], num_blocks, num_slots
            self._caches = caches.allocate(
                self._specs,
                loaded.backend,
                num_blocks=num_blocks,
                block_size=self._block_size,
                dtype=loaded.dtype,
                device=loaded.device,
                num_slots=num_slots,
            )
        for pages in caches.pages_of(self._caches):  # what an earlier pack left there may be an overflow
            pages.zero_()

    def _prefill(self, prompts: Sequence[Sequence[int]], tables: IntArray | None) -> torch.Tensor:
        """The log probabilities of the labels' first tokens [N, L]. Fills the prompts' blocks, where there are some,
        and copies each last one for every long label."""
        counts = np.array([len(prompt) for prompt in prompts])
        layout = Layout(
            counts=counts,
            starts=np.zeros_like(counts),
            tables=None if tables is None else tables[:, 0],
            block_size=self._block_size,
            slots=None if tables is None else np.arange(len(prompts)),
        )
        batch = batch_of(self._loaded, prompts, layout, np.cumsum(counts) - 1, num_later=self._longest - 1)
        hidden = self._loaded.model(batch, None if tables is None else self._caches)  # [N, H]
        if tables is not None:
            self._copy_last_blocks(counts, tables)
        firsts = [label[0] for label in self._labels]
        rows = np.repeat(np.arange(len(prompts)), len(firsts))
        return self._logprobs(hidden, rows, np.tile(firsts, len(prompts))).view(len(prompts), -1)

    def _copy_last_blocks(self, counts: IntArray, tables: IntArray) -> None:
        place = counts // self._block_size
        is_partial = counts % self._block_size > 0
        blocks = tables[np.arange(counts.size), :, np.minimum(place, tables.shape[2] - 1)][is_partial]  # [N', L]
        sources = torch.from_numpy(np.repeat(blocks[:, 0], blocks.shape[1] - 1)).to(self._loaded.device)
        targets = torch.from_numpy(blocks[:, 1:].ravel()).to(self._loaded.device)
        for pages in caches.pages_of(self._caches):
            pages.index_copy_(0, targets, pages.index_select(0, sources))

    def _copy_states(self, rows: IntArray, num_prompts: int) -> IntArray:
        """Gives the continuation of each of these prompts a copy of its states, in slots behind all prompts' own, which
        are returned."""
        slots = num_prompts + np.arange(rows.size)
        sources, targets = (torch.from_numpy(side).to(self._loaded.device) for side in (rows, slots))
        for cache in self._caches:
            if isinstance(cache, StateCache):
                cache.copy_rows(sources, targets)
        return slots

    def _continue(self, prompts: Sequence[Sequence[int]], tables: IntArray) -> torch.Tensor:
        """The summed log probabilities of the labels' further tokens [N, L]; zero for labels of one token."""
        total = torch.zeros(len(prompts), len(self._labels))
        pairs = [(row, column) for row in range(len(prompts)) for column in self._long]
        pairs.sort(key=lambda pair: len(self._labels[pair[1]]) > 2)  # single tokens first, as a layout wants it
        for start, end in _parts([len(prompts[row]) + self._longest for row, _ in pairs]):
            self._add_continued(total, prompts, tables, pairs[start:end])
        return total

    def _add_continued(
        self, total: torch.Tensor, prompts: Sequence[Sequence[int]], tables: IntArray, pairs: Sequence[tuple[int, int]]
    ) -> None:
        """Adds the log probabilities of these (prompt, label) pairs to `total`."""
        table_of = {column: place for place, column in enumerate(self._long)}
        inputs = [self._labels[column][:-1] for _, column in pairs]
        counts = np.array([len(ids) for ids in inputs])
        layout = Layout(
            counts=counts,
            starts=np.array([len(prompts[row]) for row, _ in pairs]),
            tables=np.stack([tables[row, table_of[column]] for row, column in pairs]),
            block_size=self._block_size,
            slots=self._copy_states(np.array([row for row, _ in pairs]), len(prompts)),
        )
        batch = batch_of(self._loaded, inputs, layout, None, num_later=self._longest - 1)
        hidden = self._loaded.model(batch, self._caches)  # [T, H]
        targets = np.concatenate([self._labels[column][1:] for _, column in pairs])
        logprobs = self._logprobs(hidden, np.arange(targets.size), targets)
        rows, columns = (torch.from_numpy(np.repeat(np.array(side), counts)) for side in zip(*pairs, strict=True))
        total.index_put_((rows, columns), logprobs, accumulate=True)

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


def _parts(contexts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbours with together at most `CONTEXT_TOKENS` of context, or one that has more alone: from and to (exclusive)."""
    start = num_tokens = 0
    for place, context in enumerate(contexts):
        if place > start and num_tokens + context > CONTEXT_TOKENS:
            yield start, place
            start, num_tokens = place, 0
        num_tokens += context
    if contexts:
        yield start, len(contexts)
