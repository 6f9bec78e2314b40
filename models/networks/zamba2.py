"""Zamba2 (Glorioso et al. 2024, arXiv 2411.15242): a stack of Mamba-2 layers, into some of which a shared
transformer block feeds.

There are one or two of these blocks, called in turn by the hybrid layers, each call with a cache and adapters of its
own. A block sees the hidden states and the token embeddings side by side and has no residual of its own; what it makes
goes through the hybrid layer's own `linear` into that layer's mixer and nowhere else:

    t = linear(mlp(norm(attention(norm([h, e])))))        h = h + mixer(norm(h + t))

Files hold a shared block under the first layer that calls it, or under every one; `canonical_name` knows.
"""

import re
from collections.abc import Sequence

import torch
from torch import nn

from models.config.model_config import ModelConfig
from models.config.types import MambaConfig, SharedBlocksConfig
from models.errors import ConfigError
from models.layers.attention.attention import Attention, KvCache
from models.layers.embedding import VocabEmbedding
from models.layers.linear import ColumnLinear, Linear, RowLinear, fused, gate_up_rows, head_rows, qkv_rows, replicated
from models.layers.mamba.mixer import Mamba2Mixer, MixerShare
from models.layers.norm import RMSNorm
from models.layers.rotary.rotation import Rotary, Rotation
from models.layers.state import Cache, Spec, StateCache
from models.networks.decoder import Batch, BuildOptions, GatedMLP
from models.parallel.tensor_parallel import TensorParallel

_SHARED = re.compile(r"layers\.(\d+)\.shared_transformer\.(.*)")


class Adapted(nn.Module):
    """A projection shared by several layers, plus this layer's own of low rank: base(x) + up(down(x)).

    Every rank makes all of `down`, which is small. `ups` are products for consecutive sections of the base's outputs,
    each from its own part of the inner channels.
    """

    def __init__(self, base: Linear, down: Linear, ups: Sequence[Linear]) -> None:
        super().__init__()
        self.base, self.down, self.ups = base, down, nn.ModuleList(ups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.base(x)
        inner = self.down(x).chunk(len(self.ups), dim=-1)
        start = 0
        for part, up in zip(inner, self.ups, strict=True):
            more = up(part)
            y[:, start : start + more.shape[1]] += more
            start += more.shape[1]
        return y


class SharedBlock(nn.Module):
    """The weights of one shared block, stored under layer `layer`: norms, projections, and nothing of a call's own."""

    def __init__(self, layer: int, config: ModelConfig, mamba: MambaConfig, tp: TensorParallel) -> None:
        super().__init__()
        self.name = f"layers.{layer}.shared_transformer"
        hidden, width = config.hidden_size, config.num_attention_heads * config.head_dim
        self.query_heads = tp.share(config.num_attention_heads, "attention heads")
        self.kv_heads = tp.kv_heads(config.num_attention_heads, config.num_key_value_heads)
        self.input_norm = RMSNorm(f"{self.name}.input_layernorm", 2 * hidden, config.rms_norm_eps)
        qkv = qkv_rows(
            f"{self.name}.self_attn",
            range(*self.query_heads),
            self.kv_heads,
            num_query_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
        )
        self.qkv_proj = ColumnLinear(qkv, 2 * hidden)
        self.o_proj = RowLinear(f"{self.name}.self_attn.o_proj", width, hidden, tp=tp)
        self.pre_ff_norm = RMSNorm(f"{self.name}.pre_ff_layernorm", hidden, config.rms_norm_eps)
        mlp = f"{self.name}.feed_forward"
        gate_up = fused(f"{mlp}.gate_up_proj", gate_up_rows(mlp, config.intermediate_size, tp=tp))
        self.gate_up_proj = ColumnLinear(gate_up, hidden, bias=mamba.bias)
        self.down_proj = RowLinear(f"{mlp}.down_proj", config.intermediate_size, hidden, tp=tp, bias=mamba.bias)


class SharedCall(nn.Module):
    """One hybrid layer's use of a shared block: its cache, adapters and `linear` around the block's weights.

    `rank` counts hybrid layers and names the adapters.
    """

    def __init__(self, layer: int, rank: int, block: SharedBlock, config: ModelConfig, options: BuildOptions) -> None:
        super().__init__()
        shared = config.shared_blocks
        assert shared is not None
        self.input_norm, self.pre_ff_norm = block.input_norm, block.pre_ff_norm
        self.attention = Attention(
            qkv_proj=_adapted_qkv(block, rank, config, shared) if shared.has_attention_adapters else block.qkv_proj,
            o_proj=block.o_proj,
            head_norm=None,
            num_query_heads=block.query_heads[1] - block.query_heads[0],
            num_kv_heads=len(block.kv_heads),
            head_dim=config.head_dim,
            attend=options.backend.attend,
            scale=(config.head_dim / 2) ** -0.5,  # twice as wide a head as its hidden size would give
        )
        self.mlp = GatedMLP(_adapted_gate_up(block, rank, config, shared), block.down_proj, config.hidden_act)
        self.linear = Linear([replicated(f"layers.{layer}.linear", config.hidden_size)], config.hidden_size)

    def forward(
        self, h: torch.Tensor, e: torch.Tensor, rotation: Rotation | None, cache: KvCache | None, batch: Batch
    ) -> torch.Tensor:
        """Hidden states and embeddings, both [T, H] -> what goes into the layer's mixer [T, H]."""
        t = self.input_norm(torch.cat([h, e], dim=-1))  # [T, 2H]
        heads = self.attention(t, rotation, cache, batch.attention)  # [T, Q * D]
        t = self.pre_ff_norm(self.attention.o_proj(heads))  # [T, H]
        return self.linear(self.mlp(t))  # type: ignore[no-any-return]


class Zamba2Layer(nn.Module):
    """A Mamba-2 layer over the residual stream; in a hybrid one `call` adds to what its mixer sees."""

    def __init__(self, *, call: SharedCall | None, input_norm: RMSNorm, mixer: Mamba2Mixer) -> None:
        super().__init__()
        self.call, self.input_norm, self.mixer = call, input_norm, mixer

    def forward(
        self,
        h: torch.Tensor,
        e: torch.Tensor,
        rotation: Rotation | None,
        kv: KvCache | None,
        state: StateCache | None,
        batch: Batch,
    ) -> torch.Tensor:
        """Hidden states and embeddings, both [T, H] -> hidden states [T, H]."""
        assert batch.mamba is not None
        x = h if self.call is None else self.call(h, e, rotation, kv, batch).add_(h)
        return self.mixer(self.input_norm(x), state, batch.mamba).add_(h)  # type: ignore[no-any-return]


class Zamba2Decoder(nn.Module):
    """The body of every `Zamba2For...` checkpoint."""

    def __init__(self, config: ModelConfig, options: BuildOptions) -> None:
        """Raises ConfigError if the network cannot be built, or not on this number of ranks."""
        super().__init__()
        assert config.mamba is not None
        assert config.shared_blocks is not None
        _check_adapters(config, config.shared_blocks)
        self.config, self.options = config, options
        self.hybrid_layers = [index for index, kind in enumerate(config.layer_types) if kind == "hybrid"]
        self.num_blocks = config.shared_blocks.num_blocks
        tp = options.tp
        self.embed_tokens = VocabEmbedding("embed_tokens", config.vocab_size, config.hidden_size, tp=tp)
        self.blocks = nn.ModuleList(
            SharedBlock(layer, config, config.mamba, tp) for layer in self.hybrid_layers[: self.num_blocks]
        )
        share = MixerShare.of(config.mamba, tp)
        self.layers = nn.ModuleList(self.build_layer(index, share) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm("final_layernorm", config.hidden_size, config.rms_norm_eps)
        self.rotary = Rotary(config.rope, config.head_dim, options.max_model_len)

    @property
    def cache_specs(self) -> list[Spec]:
        """Of each layer in turn: keys and values if it is hybrid, then its mixer's state."""
        specs: list[Spec] = []
        for layer in self.layers:
            assert isinstance(layer, Zamba2Layer)
            if layer.call is not None:
                specs.append(layer.call.attention.cache_spec)
            specs.append(layer.mixer.state_spec)
        return specs

    @property
    def windows(self) -> set[int | None]:
        """Attention sees every key."""
        return {None}

    def canonical_name(self, name: str) -> str:
        """The name under which the layers list a tensor: a shared block's is that of the first layer that calls it."""
        match = _SHARED.fullmatch(name)
        if match is None or int(match[1]) not in self.hybrid_layers:
            return name
        block = self.hybrid_layers.index(int(match[1])) % self.num_blocks
        return f"layers.{self.hybrid_layers[block]}.shared_transformer.{match[2]}"

    def build_layer(self, index: int, share: MixerShare) -> Zamba2Layer:
        """Layer number `index`, without storage."""
        name, call = f"layers.{index}", None
        if index in self.hybrid_layers:
            rank = self.hybrid_layers.index(index)
            block = self.blocks[rank % self.num_blocks]
            assert isinstance(block, SharedBlock)
            call, name = SharedCall(index, rank, block, self.config, self.options), f"{name}.mamba_decoder"
        hidden = self.config.hidden_size
        return Zamba2Layer(
            call=call,
            input_norm=RMSNorm(f"{name}.input_layernorm", hidden, self.config.rms_norm_eps),
            mixer=Mamba2Mixer(f"{name}.mamba", hidden, share, self.options.tp),
        )

    def forward(self, batch: Batch, caches: Sequence[Cache] | None = None) -> torch.Tensor:
        """The final hidden states [T, H], or [R, H] for `batch.rows`."""
        e = self.embed_tokens(batch.token_ids)  # [T, H]
        rotation = self.rotary(batch.positions, batch.regimes) if any(self.config.rotated_layers) else None
        h, left = e, iter(caches or ())
        for layer in self.layers:
            kv = next(left, None) if layer.call is not None else None
            h = layer(h, e, rotation, kv, next(left, None), batch)
        return self.norm(h if batch.rows is None else h.index_select(0, batch.rows))  # type: ignore[no-any-return]


def _check_adapters(config: ModelConfig, shared: SharedBlocksConfig) -> None:
    """An attention adapter makes as many channels for keys as for queries."""
    if shared.has_attention_adapters and config.num_key_value_heads != config.num_attention_heads:
        raise ConfigError(
            f"num_key_value_heads was {config.num_key_value_heads}; with use_shared_attention_adapter it must be "
            f"num_attention_heads, {config.num_attention_heads}"
        )


def _adapted_qkv(block: SharedBlock, rank: int, config: ModelConfig, shared: SharedBlocksConfig) -> Adapted:
    names = [f"{block.name}.self_attn.linear_{part}_adapter_list.{rank}" for part in "qkv"]
    heads = {"num_heads": config.num_attention_heads, "head_dim": config.head_dim}
    down = Linear([replicated(f"{name}.0", shared.adapter_rank) for name in names], 2 * config.hidden_size)
    ups = [
        ColumnLinear(head_rows(f"{name}.1", range(*block.query_heads), **heads), shared.adapter_rank) for name in names
    ]
    return Adapted(block.qkv_proj, down, ups)


def _adapted_gate_up(block: SharedBlock, rank: int, config: ModelConfig, shared: SharedBlocksConfig) -> Adapted:
    name = f"{block.name}.feed_forward.gate_up_proj_adapter_list.{rank}"
    rows = fused(f"{name}.1", block.gate_up_proj.parts)
    down = Linear([replicated(f"{name}.0", shared.adapter_rank)], config.hidden_size)
    return Adapted(block.gate_up_proj, down, [ColumnLinear(rows, shared.adapter_rank)])
