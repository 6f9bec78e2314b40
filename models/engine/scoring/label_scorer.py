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
from models.engine.scoring.batch import batch_of
from models.layers.attention.attention import IntArray, Layout
from models.layers.state import Cache, StateCache
from models.loading.load import LoadedModel

LOGIT_ROWS = 64  # rows of vocabulary-wide logits that exist at a time
CONTEXT_TOKENS = 1 << 17  # of prompts that labels look back at together, as some backends gather them for each
CACHE_PER_TOKEN = 4  # places of the scratch cache that may be reserved for each token of a pack's budget
SHARED_TOKENS = 256  # of a prompt's, once for each of its labels: from here it pays to say that they share them

Pair = tuple[int, int]  # a prompt and a label of more than one token, by their numbers


class LabelScorer:
    """Scores the same labels (token id lists, none empty) after many prompts, packed by a budget of tokens."""

    def __init__(self, loaded: LoadedModel, labels: Sequence[Sequence[int]], budget: int) -> None:
        self._loaded, self._labels = loaded, [list(label) for label in labels]
        self._long = [index for index, label in enumerate(self._labels) if len(label) > 1]
        self._num_more = sum(len(label) - 1 for label in self._labels)
        self._longest = max(len(label) for label in self._labels)
        self._block_size = loaded.backend.block_size
        self._specs = loaded.model.decoder.cache_specs
        token_bytes = max(1, caches.token_bytes(self._specs, loaded.dtype))
        self._state_places = -(-caches.state_bytes(self._specs, loaded.dtype) // token_bytes)
        self._max_places = CACHE_PER_TOKEN * budget
        self._caches: list[Cache] = []
        self._num_blocks = self._num_slots = 0

    def weight(self, num_prompt: int) -> int:
        """What a prompt of this many tokens takes of a pack's token budget, its labels and its place in the cache included."""
        num_places = self._num_blocks_of(num_prompt) * self._block_size + self._state_places if self._long else 0
        return max(num_prompt + self._num_more, -(-num_places // CACHE_PER_TOKEN))

    def score(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Log p(label | prompt), the sum over the label's tokens, for one pack of prompts: [prompts, labels] float32
        on the CPU."""
        if not self._long:
            return self._prefill(prompts, None)
        parts = list(self._parts(prompts))
        homes, num_home = self._homes(prompts)
        num_own = max(sum(self._num_own(prompts, pair) for pair in part) for part in parts)
        self._reserve(num_home + num_own, len(prompts) + max(map(len, parts)) if self._state_places else 0)
        total = self._prefill(prompts, homes)
        for part in parts:
            tables = self._tables(prompts, homes, num_home, part)
            self._copy_last_blocks(prompts, homes, tables, part)
            self._add_continued(total, prompts, tables, part)
        return total

    def _num_blocks_of(self, num_tokens: int) -> int:
        return -(-num_tokens // self._block_size)

    def _num_own(self, prompts: Sequence[Sequence[int]], pair: Pair) -> int:
        """How many blocks a label has of its own behind the full ones of its prompt."""
        row, column = pair
        num_tokens = len(prompts[row]) + len(self._labels[column]) - 1  # nothing follows the last one
        return self._num_blocks_of(num_tokens) - len(prompts[row]) // self._block_size

    def _parts(self, prompts: Sequence[Sequence[int]]) -> Iterator[list[Pair]]:
        """The pairs that are continued together: with at most `CONTEXT_TOKENS` of context, and what they take of the cache within
        its bound, or one alone."""
        pairs = [(row, column) for row in range(len(prompts)) for column in self._long]
        pairs.sort(key=lambda pair: len(self._labels[pair[1]]) > 2)  # single tokens first, as a layout wants it
        part: list[Pair] = []
        context = places = 0
        for pair in pairs:
            more_context = len(prompts[pair[0]]) + len(self._labels[pair[1]])
            more_places = self._num_own(prompts, pair) * self._block_size + self._state_places
            is_full = context + more_context > CONTEXT_TOKENS or places + more_places > self._max_places
            if part and is_full:
                yield part
                part, context, places = [], 0, 0
            part.append(pair)
            context, places = context + more_context, places + more_places
        yield part

    def _homes(self, prompts: Sequence[Sequence[int]]) -> tuple[IntArray, int]:
        """The blocks of the prompts themselves [N, blocks], one after the other, and how many they are."""
        sizes = np.array([self._num_blocks_of(len(prompt)) for prompt in prompts])
        firsts = np.cumsum(sizes) - sizes
        place = np.arange(sizes.max())
        return np.where(place < sizes[:, None], firsts[:, None] + place, 0), int(sizes.sum())

    def _tables(
        self, prompts: Sequence[Sequence[int]], homes: IntArray, num_home: int, part: Sequence[Pair]
    ) -> IntArray:
        """The blocks of each pair of a part [pairs, blocks]: the full ones of its prompt, then its own behind all prompts'."""
        num_full = [len(prompts[row]) // self._block_size for row, _ in part]
        num_own = [self._num_own(prompts, pair) for pair in part]
        tables = np.zeros((len(part), max(map(sum, zip(num_full, num_own, strict=True)))), dtype=np.int64)
        next_block = num_home
        for table, (row, _), full, own in zip(tables, part, num_full, num_own, strict=True):
            table[:full] = homes[row, :full]
            table[full : full + own] = np.arange(next_block, next_block + own)
            next_block += own
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

    def _prefill(self, prompts: Sequence[Sequence[int]], homes: IntArray | None) -> torch.Tensor:
        """The log probabilities of the labels' first tokens [N, L]. Fills the prompts' blocks, where there are some."""
        counts = np.array([len(prompt) for prompt in prompts])
        layout = Layout(
            counts=counts,
            starts=np.zeros_like(counts),
            tables=homes,
            block_size=self._block_size,
            slots=None if homes is None else np.arange(len(prompts)),
        )
        batch = batch_of(self._loaded, prompts, layout, np.cumsum(counts) - 1, num_later=self._longest - 1)
        hidden = self._loaded.model(batch, None if homes is None else self._caches)  # [N, H]
        firsts = [label[0] for label in self._labels]
        rows = np.repeat(np.arange(len(prompts)), len(firsts))
        return self._logprobs(hidden, rows, np.tile(firsts, len(prompts))).view(len(prompts), -1)

    def _add_continued(
        self, total: torch.Tensor, prompts: Sequence[Sequence[int]], tables: IntArray, part: Sequence[Pair]
    ) -> None:
        """Adds the log probabilities of the further tokens of a part's pairs to `total` [N, L]."""
        inputs = [self._labels[column][:-1] for _, column in part]
        counts = np.array([len(ids) for ids in inputs])
        starts = np.array([len(prompts[row]) for row, _ in part])
        layout = Layout(
            counts=counts,
            starts=starts,
            tables=tables,
            block_size=self._block_size,
            slots=self._copy_states(np.array([row for row, _ in part]), len(prompts)),
            families=_families(part, starts // self._block_size, self._block_size),
        )
        batch = batch_of(self._loaded, inputs, layout, None, num_later=self._longest - 1)
        hidden = self._loaded.model(batch, self._caches)  # [T, H]
        targets = np.concatenate([self._labels[column][1:] for _, column in part])
        logprobs = self._logprobs(hidden, np.arange(targets.size), targets)
        rows, columns = (torch.from_numpy(np.repeat(np.array(side), counts)) for side in zip(*part, strict=True))
        total.index_put_((rows, columns), logprobs, accumulate=True)

    def _copy_last_blocks(
        self, prompts: Sequence[Sequence[int]], homes: IntArray, tables: IntArray, part: Sequence[Pair]
    ) -> None:
        """Gives each pair a copy of its prompt's last block, where that is only partly filled. What an earlier part left in the
        other blocks goes: it may be an overflow, and some backends multiply it by 0."""
        num_tokens = np.array([len(prompts[row]) for row, _ in part])
        rows, place = np.array([row for row, _ in part]), num_tokens // self._block_size
        is_partial = num_tokens % self._block_size > 0
        own = slice(int(homes.max()) + 1, int(tables.max()) + 1)
        sources = torch.from_numpy(homes[rows, np.minimum(place, homes.shape[1] - 1)][is_partial])
        targets = torch.from_numpy(tables[np.arange(rows.size), place][is_partial])
        sources, targets = sources.to(self._loaded.device), targets.to(self._loaded.device)
        for pages in caches.pages_of(self._caches):
            pages[own].zero_()
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


def _families(part: Sequence[Pair], num_full: IntArray, block_size: int) -> tuple[tuple[int, int, int], ...]:
    """The runs of pairs behind one prompt, where it pays to name them; see `Layout`."""
    rows = np.array([row for row, _ in part])
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    afters = np.append(firsts[1:], rows.size)
    num_tokens = (afters - firsts) * num_full[firsts] * block_size
    if not num_full[firsts].all() or num_tokens.mean() < SHARED_TOKENS:
        return ()
    return tuple(zip(firsts.tolist(), afters.tolist(), num_full[firsts].tolist(), strict=True))
