"""The dense decoder that the families share: pre-norm blocks of attention and gated MLP over a residual stream.

A family subclasses `DenseDecoder` and overrides the small methods in which it differs. Nothing here knows about task
heads, requests or scheduling: `forward` takes a packed step and the caches its call sites listed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.config.model_config import ModelConfig
from models.layers.attention.attention import Attention, AttentionBackend, KvCache, KvSpec
from models.layers.embedding import VocabEmbedding
from models.layers.kernels.compiled import native_for
from models.layers.linear import ColumnLinear, Part, RowLinear, gate_up_rows, qkv_rows
from models.layers.mamba.plan import MambaPlan
from models.layers.norm import HeadNorm, RMSNorm
from models.layers.rotary.rotation import Rotary, Rotation
from models.parallel.tensor_parallel import SINGLE, TensorParallel

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One step as tensors: token ids and positions [T], the attention backend's plan for each window of the model, the
    rows [R] whose output is wanted (None: all), the rope regime of each token's sequence [T], where the model has several,
    and the plan of the Mamba layers, where there are some."""

    token_ids: torch.Tensor
    positions: torch.Tensor
    attention: Mapping[int | None, Any]
    rows: torch.Tensor | None = None
    regimes: torch.Tensor | None = None
    mamba: MambaPlan | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildOptions:
    """What a network is built for: the attention backend, this rank, and the longest sequence it will see."""

    backend: AttentionBackend
    max_model_len: int
    tp: TensorParallel = field(default=SINGLE)


class GatedMLP(nn.Module):
    """x [T, H] -> down(act(gate(x)) * up(x)) [T, H]."""

    def __init__(self, gate_up_proj: nn.Module, down_proj: RowLinear, activation: str) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = gate_up_proj, down_proj
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate_up = self.gate_up_proj(x)
        library = native_for(gate_up) if self.activation is F.silu else None
        if library is not None:
            return self.down_proj(library.gated(gate_up))  # type: ignore[no-any-return]
        gate, up = gate_up.chunk(2, dim=-1)  # [T, I] each
        return self.down_proj(self.activation(gate).mul_(up))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """One pre-norm block: x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, *, input_norm: RMSNorm, attention: Attention, post_norm: RMSNorm, mlp: GatedMLP) -> None:
        super().__init__()
        self.input_norm, self.attention, self.post_norm, self.mlp = input_norm, attention, post_norm, mlp

    def forward(
        self,
        x: torch.Tensor,
        rotation: Rotation | None,
        cache: KvCache | None,
        plans: Mapping[int | None, Any],
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """X [T, H] -> [T, H], or [R, H] when only these rows are wanted from here on."""
        heads = self.attention(self.input_norm(x), rotation, cache, plans)  # [T, Q * D]
        if rows is not None:
            x, heads = x.index_select(0, rows), heads.index_select(0, rows)
        x = self.attention.o_proj(heads).add_(x)
        return self.mlp(self.post_norm(x)).add_(x)  # type: ignore[no-any-return]


class DenseDecoder(nn.Module):
    """Embedding, blocks and final norm of a dense family; the default methods are Llama's."""

    def __init__(self, config: ModelConfig, options: BuildOptions) -> None:
        super().__init__()
        self.config, self.options = config, options
        tp = options.tp
        self.query_heads = tp.share(config.num_attention_heads, "attention heads")
        self.kv_heads = tp.kv_heads(config.num_attention_heads, config.num_key_value_heads)
        self.embed_tokens = VocabEmbedding("embed_tokens", config.vocab_size, config.hidden_size, tp=tp)
        self.layers = nn.ModuleList(self.build_layer(index) for index in range(config.num_hidden_layers))
        self.norm = self.build_norm("norm")
        self.rotary = self.build_rotary()

    @property
    def cache_specs(self) -> list[KvSpec]:
        """One for every call site that needs a cache, in the order `forward` takes them."""
        return [layer.attention.cache_spec for layer in self.layers]  # type: ignore[union-attr,misc]

    @property
    def windows(self) -> set[int | None]:
        """The numbers of keys that queries see at the model's call sites; None: all of them."""
        return {layer.attention.window for layer in self.layers}  # type: ignore[union-attr,misc]

    def canonical_name(self, name: str) -> str:
        """The name under which the layers list a tensor that a file calls `name`."""
        return name

    def forward(self, batch: Batch, caches: Sequence[KvCache] | None = None) -> torch.Tensor:
        """The final hidden states [T, H], or [R, H] for `batch.rows`."""
        x = self.embed_tokens(batch.token_ids)  # [T, H]
        rotation = self.rotary(batch.positions, batch.regimes)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            cache = None if caches is None else caches[index]
            turn = rotation if self.config.rotated_layers[index] else None
            x = layer(x, turn, cache, batch.attention, batch.rows if index == last else None)
        return self.norm(x)  # type: ignore[no-any-return]

    def build_layer(self, index: int) -> DecoderLayer:
        """Block number `index`, without storage."""
        name = f"layers.{index}"
        slides = self.config.layer_types[index] == "sliding_attention"
        return DecoderLayer(
            input_norm=self.build_norm(f"{name}.input_layernorm"),
            attention=self.build_attention(f"{name}.self_attn", self.config.sliding_window if slides else None),
            post_norm=self.build_norm(f"{name}.post_attention_layernorm"),
            mlp=self.build_mlp(f"{name}.mlp"),
        )

    def build_norm(self, name: str) -> RMSNorm:
        """A norm over the residual stream."""
        return RMSNorm(name, self.config.hidden_size, self.config.rms_norm_eps)

    def build_rotary(self) -> Rotary:
        """The rotary embedding of all layers that have one."""
        return Rotary(self.config.rope, self.config.head_dim, self.options.max_model_len)

    def build_attention(self, name: str, window: int | None) -> Attention:
        """The attention of one block, in which a query sees `window` keys (None: all): query, key and value projections
        fused by rows."""
        config = self.config
        width = config.num_attention_heads * config.head_dim
        return Attention(
            qkv_proj=ColumnLinear(self.qkv_parts(name), config.hidden_size, bias=config.attention_bias),
            o_proj=RowLinear(
                f"{name}.o_proj", width, config.hidden_size, tp=self.options.tp, bias=self.has_output_bias
            ),
            head_norm=self.build_head_norm(name),
            num_query_heads=self.query_heads[1] - self.query_heads[0],
            num_kv_heads=len(self.kv_heads),
            head_dim=config.head_dim,
            attend=self.options.backend.attend,
            window=window,
        )

    @property
    def has_output_bias(self) -> bool:
        """Whether `attention_bias` is one of the output projection too."""
        return self.config.attention_bias

    def qkv_parts(self, name: str) -> list[Part]:
        """Where this rank's query, key and value rows are published."""
        return qkv_rows(
            name,
            range(*self.query_heads),
            self.kv_heads,
            num_query_heads=self.config.num_attention_heads,
            num_kv_heads=self.config.num_key_value_heads,
            head_dim=self.config.head_dim,
        )

    def build_head_norm(self, name: str) -> HeadNorm | None:  # noqa: ARG002
        """Norms over each query and key head; none by default."""
        return None

    def build_mlp(self, name: str) -> GatedMLP:
        """The gated MLP of one block: gate and up projections fused by rows."""
        config, tp = self.config, self.options.tp
        return GatedMLP(
            ColumnLinear(self.gate_up_parts(name), config.hidden_size, bias=config.mlp_bias),
            RowLinear(f"{name}.down_proj", config.intermediate_size, config.hidden_size, tp=tp, bias=config.mlp_bias),
            config.hidden_act,
        )

    def gate_up_parts(self, name: str) -> list[Part]:
        """Where this rank's gate and up rows are published."""
        return gate_up_rows(name, self.config.intermediate_size, tp=self.options.tp)
