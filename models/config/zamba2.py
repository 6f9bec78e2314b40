"""Zamba2's own rules: which layers are hybrid, what stands beside attention in it, and the options that this gives."""

from dataclasses import dataclass
from typing import Annotated

from models.config.fields import ConfigFields
from models.config.layer_rules import Layers
from models.config.limits import MAX_CONV_WIDTH, MAX_FACTOR, MAX_HEADS, MAX_LAYERS, MAX_WIDTH
from models.config.option import Option
from models.config.types import DtClamp, LayerType, MambaConfig, Mixers, SharedBlocksConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Zamba2Options:
    """What may be chosen of a Zamba2: published implementations do it differently (`docs/decisions/0009-*`)."""

    mamba_dt_clamp: Annotated[
        DtClamp,
        Option(
            "whose step sizes are raised to the checkpoint's `time_step_min`: `prefill` (given tokens', as transformers), "
            "`both` (generated ones' too), `none` (as vLLM)"
        ),
    ] = "prefill"


_LAYERS = {"mamba": "mamba", "linear_attention": "mamba", "hybrid": "hybrid"}
_PATTERN = (
    ["mamba"]
    + (["mamba"] * 5 + ["hybrid"]) * 7
    + ["mamba"] * 4
    + ["hybrid"]
    + ["mamba"] * 3
    + ["hybrid"]
    + ["mamba"] * 2
)


def hybrid_layers(fields: ConfigFields, num_layers: int) -> Layers:
    """Zamba2's rule: a list under one of two names, or the pattern of the 54-layer model."""
    name = "layers_block_type" if fields.values.get("layers_block_type") is not None else "layer_types"
    names = fields.strings(name) or _PATTERN
    if len(names) != num_layers:
        raise fields.error(name, f"a list of num_hidden_layers ({num_layers}) names; the default is one of 54")
    if not set(names) <= set(_LAYERS):
        raise fields.error(name, f"a list of {', '.join(_LAYERS)}")
    types: tuple[LayerType, ...] = tuple("hybrid" if each == "hybrid" else "mamba" for each in names)
    has_rope = fields.boolean("use_mem_rope", default=False)
    return Layers(types=types, rotated=tuple(has_rope and kind == "hybrid" for kind in types), window=None)


def mixers(fields: ConfigFields, hidden_size: int, options: Zamba2Options) -> Mixers:
    """Its Mamba-2 mixers and shared transformer blocks."""
    num_heads = fields.integer("n_mamba_heads", 8, maximum=MAX_HEADS)
    inner_size = int(fields.number("mamba_expand", 2, maximum=MAX_FACTOR) * hidden_size)
    num_groups = fields.integer("mamba_ngroups", 1, maximum=MAX_HEADS)
    if not 0 < inner_size <= MAX_WIDTH:
        raise fields.error("mamba_expand", f"a number with which it times hidden_size is from 1 to {MAX_WIDTH:,}")
    if inner_size % num_heads:
        raise fields.error("n_mamba_heads", f"a divisor of mamba_expand * hidden_size, {inner_size}")
    if num_heads % num_groups:
        raise fields.error("mamba_ngroups", f"a divisor of n_mamba_heads, {num_heads}")
    return Mixers(
        mamba=MambaConfig(
            num_heads=num_heads,
            head_dim=inner_size // num_heads,
            num_groups=num_groups,
            state_size=fields.integer("mamba_d_state", 64, maximum=MAX_WIDTH),
            conv_width=fields.integer("mamba_d_conv", 4, maximum=MAX_CONV_WIDTH),
            dt_min=fields.number("time_step_min", 0.001),
            dt_clamp=options.mamba_dt_clamp,
            chunk_size=fields.integer("chunk_size", 256, maximum=MAX_WIDTH),
            bias=fields.boolean("add_bias_linear", default=False),
        ),
        shared_blocks=SharedBlocksConfig(
            num_blocks=fields.integer("num_mem_blocks", 1, maximum=MAX_LAYERS),
            adapter_rank=fields.integer("adapter_rank", 128, maximum=MAX_WIDTH),
            has_attention_adapters=fields.boolean("use_shared_attention_adapter", default=False),
        ),
    )
