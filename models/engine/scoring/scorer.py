"""Single-pass heads: token ids in, logits out, packed by token budget without padding. No cache, no scheduler.

Sequences are packed longest first in a fixed order, so the same list of sequences gives the same bytes whenever and
wherever it is scored.
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
from models.engine.scoring.batch import batch_of, packs
from models.engine.scoring.label_scorer import LabelScorer
from models.engine.scoring.vectors import Vectors
from models.engine.shard_processes import SCORED_TOKENS, LocalShards, Shards, ShardWork, StartShards, start_shards
from models.errors import RequestError
from models.layers.attention.attention import IntArray, Layout
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
        return MemoryPlan(num_shards=self._loaded.tp.size, weights_bytes=self._loaded.weights_bytes)

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
        self._check_lengths(token_ids, 0)
        self._check_vocabulary("sequence", token_ids)
        self._call("score", token_ids)
        scores: list[torch.Tensor | None] = [None] * len(token_ids)
        for members in self._packs([len(ids) for ids in token_ids]):
            sequences = [token_ids[index] for index in members]
            counts = np.array([len(ids) for ids in sequences])
            layout = Layout(counts=counts, starts=np.zeros_like(counts))
            last_rows = self._last_rows(sequences) if self.head == "sequence-classification" else None
            hidden = self._loaded.model(batch_of(self._loaded, sequences, layout, last_rows))
            logits = self._loaded.model.logits(hidden).float().cpu()
            parts = logits.split(counts.tolist()) if last_rows is None else logits
            for index, part in zip(members, parts, strict=True):
                scores[index] = part
        return [score for score in scores if score is not None]

    @torch.no_grad()
    def score_labels(self, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> torch.Tensor:
        """Log p(label | prompt) summed over the label's tokens: [prompts, labels] float32 on the CPU. Each prompt is
        prefilled once.

        Raises:
            RequestError: the head is not causal, there is no label, a prompt is empty or with its longest label too
            long, or one of them is not of this vocabulary.
        """
        if not self.config.is_causal:
            raise RequestError(f"labels are scored by a causal model, and this is none: {TWO_WAY}")
        if self.head != "causal":
            raise RequestError(
                f"labels are scored by a causal model; this one has a {self.head} head, which has its own labels"
            )
        if not labels or not all(labels):
            raise RequestError("labels must be at least one list of token ids, none of them empty")
        self._check_lengths(prompts, max(len(label) for label in labels))
        self._check_vocabulary("sequence", prompts)
        self._check_vocabulary("label", labels)
        self._call("score_labels", prompts, labels)
        scorer = LabelScorer(self._loaded, labels, self._budget)
        scores = torch.empty(len(prompts), len(labels))
        for members in self._packs([scorer.weight(len(prompt)) for prompt in prompts]):
            scores[members] = scorer.score([prompts[index] for index in members])
        return scores

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
        self._check_lengths(token_ids, 0)
        self._check_vocabulary("sequence", token_ids)
        _check_pooled(token_ids, num_skipped)
        self._call("pool", token_ids, pooling, num_skipped)
        vectors = torch.empty(len(token_ids), self.config.hidden_size)
        for members in self._packs([len(ids) for ids in token_ids]):
            sequences = [token_ids[index] for index in members]
            counts = np.array([len(ids) for ids in sequences])
            layout = Layout(counts=counts, starts=np.zeros_like(counts))
            rows = _pooled_rows(counts, pooling, num_skipped)
            hidden = self._loaded.model(batch_of(self._loaded, sequences, layout, rows)).float()
            if rows is None:
                hidden = torch.stack([part[num_skipped:].mean(dim=0) for part in hidden.split(counts.tolist())])
            vectors[members] = hidden.cpu()
        return vectors

    def _call(self, method: str, *arguments: object) -> None:
        """Has the other ranks compute their part of what this one is about to."""
        with self._watchdog:
            self._loaded.tp.call(method, *arguments)

    def _packs(self, weights: Sequence[int]) -> Iterator[list[int]]:
        """Which sequences each pass takes, the pass being what the caller does before the next."""
        for members in packs(weights, self._budget):
            with self._watchdog:
                yield members

    def _last_rows(self, sequences: Sequence[Sequence[int]]) -> IntArray:
        """The packed token of each sequence that is classified: as in transformers its last one that is no pad token,
        or its first where all are."""
        pad, rows, first = self.config.pad_token_id, [], 0
        for ids in sequences:
            rows.append(first + next((place for place in range(len(ids) - 1, -1, -1) if ids[place] != pad), 0))
            first += len(ids)
        return np.array(rows)

    def _check_lengths(self, token_ids: Sequence[Sequence[int]], num_more: int) -> None:
        limit = self.max_model_len - num_more
        for index, ids in enumerate(token_ids):
            if not 1 <= len(ids) <= limit:
                raise RequestError(f"sequence {index} has {len(ids)} tokens; it must have from 1 to {limit}")

    def _check_vocabulary(self, what: str, token_ids: Sequence[Sequence[int]]) -> None:
        limit = self.config.vocab_size
        for index, ids in enumerate(token_ids):
            if not 0 <= min(ids) <= max(ids) < limit:
                raise RequestError(
                    f"{what} {index} holds token ids from {min(ids)} to {max(ids)}; the vocabulary has 0 to {limit - 1}"
                )


def _pooled_rows(counts: IntArray, pooling: Pooling, num_skipped: int) -> IntArray | None:
    """The packed token of each sequence that is its vector; None where all are."""
    if pooling == "mean":
        return None
    ends: IntArray = np.cumsum(counts)
    return ends - 1 if pooling == "last" else ends - counts + num_skipped


def _check_pooled(token_ids: Sequence[Sequence[int]], num_skipped: int) -> None:
    for index, ids in enumerate(token_ids):
        if len(ids) <= num_skipped:
            raise RequestError(
                f"sequence {index} has {len(ids)} tokens, of which {num_skipped} are its prompt's: nothing is pooled"
            )
