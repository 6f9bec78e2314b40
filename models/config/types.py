"""What a checkpoint's configuration is made of: names, rotary embedding, and the parts that one family alone has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Head = Literal["causal", "sequence-classification", "token-classification", "question-answering", "embedding"]
"""What stands on a network's final hidden states; "embedding" is nothing: the states themselves."""
HiddenAct = Literal["silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2"]
Dtype = Literal["bfloat16", "float16", "float32"]
LayerType = Literal["full_attention", "sliding_attention", "mamba", "hybrid"]
DtClamp = Literal["none", "prefill", "both"]
"""Which step sizes in Mamba layers have the published smallest one as their floor: none, those of
given tokens, or all."""
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeRegimes:
    """Which rotation a sequence is in, where that depends on how long it is: keys cached in one regime are of no use in
    another.

    "switch" (longrope): 0 up to `limit` tokens, 1 beyond; a sequence that grows past the limit is computed again from
    its first token, as transformers' `generate` does. "prompt" (dynamic): the length of a prompt over `limit`, which
    scales the whole prompt, else 0; tokens generated later scale by their own place. "fixed": always 0. A sequence alone
    decides, as in transformers with a batch of one; there a long sequence changes the others of its batch.
    """

    kind: Literal["fixed", "switch", "prompt"] = "fixed"
    limit: int = 0

    def of(self, num_prompt: int, num_tokens: int) -> int:
        """The regime of a sequence with this many prompt tokens and tokens in all."""
        if self.kind == "switch":
            return int(num_tokens > self.limit)
        return num_prompt if self.kind == "prompt" and num_prompt > self.limit else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Rotary position embedding: kind, base, the rotated part of each head, and what the kind needs besides.

    `parameters` is the published dict with `rope_theta` and `rope_type` filled in, and for the kinds that scale from
    a shorter context `original_max_position_embeddings` too; yarn always has its `factor`. `max_positions` is the
    model's `max_position_embeddings`, from which some kinds derive their scale.
    """

    kind: str = "default"
    theta: float
    partial_rotary_factor: float = 1.0
    max_positions: int
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def regimes(self) -> RopeRegimes:
        """How the rotation depends on a sequence's length."""
        if self.kind == "longrope":
            return RopeRegimes(kind="switch", limit=self.parameters["original_max_position_embeddings"])
        return RopeRegimes(kind="prompt", limit=self.max_positions) if self.kind == "dynamic" else RopeRegimes()


@dataclass(frozen=True, kw_only=True, slots=True)
class MambaConfig:
    """The Mamba-2 mixers of a hybrid network (Dao & Gu 2024): `num_heads` heads of `head_dim` channels over states of
    `state_size`, B and C shared by the heads of each of `num_groups`; a causal convolution over `conv_width` tokens
    before. `dt_min` is the published smallest step size, `dt_clamp` says whose are raised to it; `bias` is that of the
    projections in and out."""

    num_heads: int
    head_dim: int
    num_groups: int
    state_size: int
    conv_width: int
    dt_min: float
    dt_clamp: DtClamp
    chunk_size: int
    bias: bool

    @property
    def inner_size(self) -> int:
        return self.num_heads * self.head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedBlocksConfig:
    """Zamba2's transformer blocks that hybrid layers take turns in: the hybrid layer of rank a (counted among hybrid
    layers) calls block a % `num_blocks`, with adapters of rank `adapter_rank` of its own on the MLP and, where
    `has_attention_adapters`, on query, key and value."""

    num_blocks: int
    adapter_rank: int
    has_attention_adapters: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixers:
    """What a hybrid network has besides attention."""

    mamba: MambaConfig
    shared_blocks: SharedBlocksConfig
