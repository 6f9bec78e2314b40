"""What an engine has done with its memory, for people and for reports."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Bytes of one shard of a model's `num_shards`: its weights and its cache, which holds
    `num_tokens` tokens of at most `num_seqs` sequences at once (0 of these where it keeps nothing
    but tokens), and beside the recurrent states of these `num_snapshots` that are kept for prompts
    to come. An engine that keeps no cache has 0 of all."""

    num_shards: int
    weights_bytes: int
    cache_bytes: int = 0
    num_tokens: int = 0
    num_seqs: int = 0
    num_snapshots: int = 0
