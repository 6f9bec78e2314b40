"""Single-pass heads: token ids in, logits out, packed by token budget without padding. No
scheduler.

Equal sequences are computed once; and what sequences of a causal network begin with in common is,
too, in this call or in an earlier one, unless something is asked about each of their tokens. A
sequence's answer is then the same but for rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import torch

from models.checkpoint.place import local_folder
from models.config.families import with_old_spelling
from models.config.model_config import TWO_WAY, ModelConfig
from models.config.quantization import QuantizationConfig
from models.config.types import Head
from models.engine.memory import MemoryPlan
from models.engine.options import EngineOptions
from models.engine.scoring.equals import Different
from models.engine.scoring.label_scorer import Labels, LabelScorer
from models.engine.scoring.pooled import PooledStates
from models.engine.scoring.prefix_cache import PrefixCache
from models.engine.scoring.segments import Passes
from models.engine.scoring.vectors import Vectors
from models.engine.scoring.walk import Leaf, Walk, WalkedSequence
from models.engine.scoring.whole import OnComputed, WholeSequences
from models.engine.shard_processes import SCORED_TOKENS, LocalShards, Shards, ShardWork, StartShards, start_shards
from models.errors import RequestError
from models.layers.attention.attention import IntArray
from models.loading.load import LoadedModel, load_model, load_tokenizer
from models.tasks.embedding import AskedPooling, EmbedOptions, Pooling, embedding_of
from models.text.tokenizer import Tokenizer


class Scorer:
    """A model behind a task head that needs one forward pass a sequence."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        tokenizer: Tokenizer | None = None,
        max_num_batched_tokens: int = SCORED_TOKENS,
        shards: Shards | None = None,
        watchdog: AbstractContextManager[None] | None = None,
    ) -> None:
        """`shards` are the model's other ranks, if they end with this one; `watchdog` is entered for every pass."""
        self._loaded, self.tokenizer, self._budget, self._shards = loaded, tokenizer, max_num_batched_tokens, shards
        self._watchdog = watchdog or nullcontext()
        self.config: ModelConfig = loaded.config
        self.head: Head = loaded.head
        self.max_model_len = loaded.max_model_len
        self.num_cached: IntArray = np.zeros(0, dtype=np.int64)
        """How many tokens of each sequence of the last call were not computed for it, but for
        another or in an earlier call."""
        self.on_computed: OnComputed = _unheard
        """Told of the sequences that a pack of the call in progress has computed; equal ones count once."""
        self._cache = PrefixCache(loaded, max_num_batched_tokens)
        self._passes = Passes(loaded, self._cache)
        self._walk = Walk(self._passes, self._cache, budget=max_num_batched_tokens, watchdog=self._watchdog)
        self._pooled = PooledStates(self._passes, self._cache)
        self._whole = WholeSequences(loaded, budget=max_num_batched_tokens, watchdog=self._watchdog)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        head: str = "auto",
        dtype: str = "auto",
        device: str = "auto",
        quantization: str | QuantizationConfig | None = None,
        model_options: Mapping[str, Any] = MappingProxyType({}),
        mamba_dt_clamp: str = "prefill",
        max_num_batched_tokens: int | None = None,
        max_model_len: int | None = None,
        tensor_parallel_size: int = 1,
        start: StartShards = LocalShards,
        watchdog: AbstractContextManager[None] | None = None,
    ) -> "Scorer":
        """Loads a checkpoint: a folder, a URL or a hub id (`models.checkpoint.place`). `head` overrides the one its
        architecture names; `model_options` are those that the checkpoint's family declares (`mamba_dt_clamp` alone is the
        old spelling of one); sizes are those of `EngineOptions`. Without tokenizer.json it scores token ids only. `start`
        makes the other shards of a `tensor_parallel_size` over 1: processes of this machine, which `close` ends.

        Raises:
            ModelError: the checkpoint cannot be loaded, or an argument cannot be used.
        """
        sizes = EngineOptions(
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
            tensor_parallel_size=tensor_parallel_size,
        )
        budget = sizes.max_num_batched_tokens or SCORED_TOKENS
        folder = local_folder(path)
        load: dict[str, Any] = {
            "path": folder, "head": head, "dtype": dtype, "device": device, "quantization": quantization,
            "model_options": with_old_spelling(model_options, mamba_dt_clamp), "max_model_len": max_model_len,
        }  # fmt: skip
        work = ShardWork(load=load, max_num_scored_tokens=budget)
        shards = start_shards(work, tensor_parallel_size, start)
        try:
            loaded = load_model(**load, tp=shards.join())
            tokenizer = load_tokenizer(folder)
            return cls(loaded, tokenizer=tokenizer, max_num_batched_tokens=budget, shards=shards, watchdog=watchdog)
        except BaseException:
            shards.kill()
            raise

    @property
    def memory(self) -> MemoryPlan:
        """What a shard takes."""
        return MemoryPlan(
            num_shards=self._loaded.tp.size,
            weights_bytes=self._loaded.weights_bytes,
            cache_bytes=self._cache.num_bytes,
            num_tokens=self._cache.num_places,
            num_seqs=self._cache.num_slots,
        )

    @property
    def shares_beginnings(self) -> bool:
        """Whether its calls compute once what sequences begin with in common; not where each of
        their tokens is asked about."""
        return self.config.is_causal and self.head not in ("token-classification", "question-answering")

    def check_idle(self) -> None:
        """Raises AssertionError if the cache holds what it should not between calls."""
        self._cache.check_idle()

    def close(self) -> None:
        """Ends the other shards, where there are some."""
        if self._shards is not None:
            self._shards.close()

    @torch.no_grad()
    def score(self, token_ids: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The head's logits for each sequence, float32 on the CPU: causal [T, V], sequence classification [L], token
        classification [T, L], question answering [T, 2] (start, end), no head [T, H].

        Raises:
            RequestError: a sequence is empty, longer than `max_model_len`, or not of this vocabulary.
        """
        self._check_lengths(token_ids)
        self._check_vocabulary("sequence", token_ids)
        self._call("score", token_ids)
        different = Different.of(token_ids)
        if self.head == "sequence-classification" and self.config.is_causal:
            return different.to_each(self._classes(different))
        is_one_place = self.head == "sequence-classification"
        places = [self._last_place(ids) for ids in different.sequences] if is_one_place else None
        self.num_cached = different.num_cached(np.zeros(len(different.sequences), dtype=np.int64))
        return different.to_each(self._whole.logits(different.sequences, places, self.on_computed))

    def _classes(self, different: Different) -> list[torch.Tensor]:
        """The logits of a head on each sequence's last token; those behind it are not computed."""
        asked = [self._asked(ids, self._last_place(ids) + 1) for ids in different.sequences]
        scores = torch.empty(len(asked), self.config.num_labels)
        for leaves in self._shared(different, asked):
            hidden = self._pooled.last(leaves, asked)
            scores[[leaf.index for leaf in leaves]] = self._loaded.model.logits(hidden).float().cpu()
        return list(scores)

    @torch.no_grad()
    def score_labels(self, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> torch.Tensor:
        """Log p(label | prompt) summed over the label's tokens: [prompts, labels] float32 on the CPU. Each prompt is
        prefilled once.

        Raises:
            RequestError: the head is not causal, there is no label, a prompt is empty or with its longest label too
            long, or one of them is not of this vocabulary.
        """
        scores = self._score_sets(prompts, [labels], [0] * len(prompts))
        return torch.stack(scores) if scores else torch.empty(0, len(labels))

    @torch.no_grad()
    def score_own_labels(
        self, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[Sequence[int]]]
    ) -> list[torch.Tensor]:
        """The same where each prompt has labels of its own: [labels] of each.

        Raises:
            RequestError: as `score_labels` does.
        """
        sets: dict[tuple[tuple[int, ...], ...], int] = {}
        numbers = [sets.setdefault(tuple(map(tuple, own)), len(sets)) for own in labels]
        return self._score_sets(prompts, list(sets), numbers)

    def _score_sets(
        self, prompts: Sequence[Sequence[int]], sets: Sequence[Labels], numbers: Sequence[int]
    ) -> list[torch.Tensor]:
        """Behind prompt i the labels `sets[numbers[i]]`."""
        self._check_labels(prompts, sets, numbers)
        self._call("score_sets", prompts, sets, numbers)
        return self.score_sets(prompts, sets, numbers)

    @torch.no_grad()
    def score_sets(
        self, prompts: Sequence[Sequence[int]], sets: Sequence[Labels], numbers: Sequence[int]
    ) -> list[torch.Tensor]:
        """A rank's part of `score_labels` and `score_own_labels`, of arguments that were
        checked."""
        different = Different.of(prompts, numbers)
        scorer = LabelScorer(
            self._loaded,
            sets,
            different.kinds,
            passes=self._passes,
            cache=self._cache,
            budget=self._budget,
        )
        asked = scorer.asked(different.sequences)
        scores: dict[int, torch.Tensor] = {}
        for leaves in self._shared(different, asked, num_more=scorer.longest, slots_each=scorer.slots_each):
            scores.update(zip((leaf.index for leaf in leaves), scorer.score(leaves, asked), strict=True))
        return different.to_each([scores[index] for index in range(len(asked))])

    def _check_labels(self, prompts: Sequence[Sequence[int]], sets: Sequence[Labels], numbers: Sequence[int]) -> None:
        if not self.config.is_causal:
            raise RequestError(f"labels are scored by a causal model, and this is none: {TWO_WAY}")
        if self.head != "causal":
            raise RequestError(
                f"labels are scored by a causal model; this one has a {self.head} head, which has its own labels"
            )
        for labels in sets:
            if not labels or not all(labels):
                raise RequestError("labels must be at least one list of token ids, none of them empty")
            self._check_vocabulary("label", labels)
        longest = [max(map(len, labels)) for labels in sets]
        self._check_lengths(prompts, [longest[number] for number in numbers])
        self._check_vocabulary("sequence", prompts)

    def rerank(self, prompts: Sequence[Sequence[int]], *, yes: int, no: int) -> torch.Tensor:
        """How likely a causal reranker (Qwen3-Reranker) finds each prompt's document relevant: the probability of the
        token `yes` next to `no` alone, [prompts] float32 on the CPU.

        Raises:
            RequestError: as `score_labels` does.
        """
        return torch.softmax(self.score_labels(prompts, [[yes], [no]]), dim=-1)[:, 0]

    @cached_property
    def vectors(self) -> Vectors:
        """How this checkpoint makes vectors of pooled hidden states; read when it is first asked for.

        Raises:
            ModelError: what the checkpoint says of it cannot be used.
        """
        return Vectors.load(self._loaded.folder, embedding_of(self._loaded.folder, self.config))

    def embed(
        self,
        token_ids: Sequence[Sequence[int]],
        pooling: AskedPooling = "auto",
        *,
        normalize: bool | None = None,
        dimensions: int | None = None,
        num_skipped: int = 0,
    ) -> torch.Tensor:
        """One vector a sequence, [N, D] float32 on the CPU: its final hidden states pooled, and what follows that in the checkpoint
        (`models.tasks.embedding`). "auto" and None are as the checkpoint has it. `dimensions` keeps the first of each vector, which
        is scaled to length 1 after that if `normalize`. The first `num_skipped` tokens are not pooled. Whatever head was loaded is
        left out.

        Raises:
            RequestError: an argument is none of those, or a sequence is empty, longer than `max_model_len`, not of this vocabulary, or
                has no token to pool.
            ModelError: what the checkpoint says of its vectors cannot be used.
        """
        if pooling not in get_args(AskedPooling):
            raise RequestError(f"pooling was {pooling!r}; it must be one of {', '.join(get_args(AskedPooling))}")
        vectors = self.vectors
        embedding = vectors.embedding
        embedding.check(EmbedOptions(dimensions=dimensions))
        pooled = self.pool(token_ids, embedding.pooling if pooling == "auto" else pooling, num_skipped)
        return vectors.of(
            pooled, normalize=embedding.normalizes if normalize is None else normalize, dimensions=dimensions
        )

    @torch.no_grad()
    def pool(self, token_ids: Sequence[Sequence[int]], pooling: Pooling, num_skipped: int = 0) -> torch.Tensor:
        """The final hidden state of each sequence's last token, its first after `num_skipped`, or the mean of all after those:
        [N, H] float32 on the CPU.

        Raises:
            RequestError: as `embed` does.
        """
        self._check_lengths(token_ids)
        self._check_vocabulary("sequence", token_ids)
        _check_pooled(token_ids, num_skipped)
        self._call("pool", token_ids, pooling, num_skipped)
        different = Different.of(token_ids)
        if self.config.is_causal:
            return self._pool_causal(different, pooling, num_skipped)[different.numbers]
        self.num_cached = different.num_cached(np.zeros(len(different.sequences), dtype=np.int64))
        vectors = self._whole.pooled(different.sequences, pooling, num_skipped, self.on_computed)
        return vectors[different.numbers]

    def _pool_causal(self, different: Different, pooling: Pooling, num_skipped: int) -> torch.Tensor:
        is_mean = pooling == "mean"
        ends = [num_skipped + 1 if pooling == "cls" else len(ids) for ids in different.sequences]
        asked = [self._asked(ids, end) for ids, end in zip(different.sequences, ends, strict=True)]
        vectors = torch.empty(len(asked), self.config.hidden_size)
        for leaves in self._shared(different, asked, keeps_hidden=is_mean):
            found = self._pooled.mean(leaves, asked, num_skipped) if is_mean else self._pooled.last(leaves, asked)
            vectors[[leaf.index for leaf in leaves]] = found.float().cpu()
        return vectors

    def _asked(self, ids: Sequence[int], end: int) -> WalkedSequence:
        """The first `end` tokens of a sequence."""
        regime = self.config.rope.regimes.of(len(ids), len(ids))
        return WalkedSequence(tokens=np.array(ids[:end], dtype=np.int64), regime=regime)

    def _shared(
        self, different: Different, asked: Sequence[WalkedSequence], *, num_more: int = 0, **kinds: Any
    ) -> Iterator[list[Leaf]]:
        """The packs of a walk, whose keyword arguments `kinds` are; at most `num_more` tokens
        follow a sequence."""
        self._cache.begin(max((one.tokens.size for one in asked), default=0) + num_more)
        for leaves in self._walk.packs(asked, **kinds):
            yield leaves
            self.on_computed(len(leaves))
        self.num_cached = different.num_cached(self._walk.num_cached)

    def _call(self, method: str, *arguments: object) -> None:
        """Has the other ranks compute their part of what this one is about to."""
        with self._watchdog:
            self._loaded.tp.call(method, *arguments)

    def _last_place(self, ids: Sequence[int]) -> int:
        """The token of a sequence that is classified: as in transformers its last one that is no
        pad token, or its first where all are."""
        pad = self.config.pad_token_id
        return next((place for place in range(len(ids) - 1, -1, -1) if ids[place] != pad), 0)

    def _check_lengths(self, token_ids: Sequence[Sequence[int]], num_more: Sequence[int] | None = None) -> None:
        """`num_more` tokens follow each sequence."""
        for index, ids in enumerate(token_ids):
            limit = self.max_model_len - (0 if num_more is None else num_more[index])
            if not 1 <= len(ids) <= limit:
                raise RequestError(f"sequence {index} has {len(ids)} tokens; it must have from 1 to {limit}")

    def _check_vocabulary(self, what: str, token_ids: Sequence[Sequence[int]]) -> None:
        limit = self.config.vocab_size
        for index, ids in enumerate(token_ids):
            if not 0 <= min(ids) <= max(ids) < limit:
                raise RequestError(
                    f"{what} {index} holds token ids from {min(ids)} to {max(ids)}; the vocabulary has 0 to {limit - 1}"
                )


def _unheard(count: int) -> None:
    """Of a caller who waits for all answers."""
    del count


def _check_pooled(token_ids: Sequence[Sequence[int]], num_skipped: int) -> None:
    for index, ids in enumerate(token_ids):
        if len(ids) <= num_skipped:
            raise RequestError(
                f"sequence {index} has {len(ids)} tokens, of which {num_skipped} are its prompt's: nothing is pooled"
            )
