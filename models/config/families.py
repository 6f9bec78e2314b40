"""What each family's published configuration class fills in where config.json is silent. A family is one row of `FAMILIES`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import get_args

from models.config.fields import Fields
from models.config.limits import MAX_CONV_WIDTH, MAX_FACTOR, MAX_HEADS, MAX_LAYERS, MAX_WIDTH
from models.config.rope import RopeRules
from models.config.types import HiddenAct, LayerType, MambaConfig, SharedBlocksConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """The kind of each layer, which of them rotate queries and keys, and how many keys a sliding one sees."""

    types: tuple[LayerType, ...]
    rotated: tuple[bool, ...]
    window: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixers:
    """What a hybrid network has besides attention."""

    mamba: MambaConfig
    shared_blocks: SharedBlocksConfig


LayerRule = Callable[[Fields, int], Layers]


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Class defaults of one `model_type`.

    `head_dim` None is hidden_size // num_attention_heads, `num_key_value_heads` None is num_attention_heads and
    `intermediate_size` None is 4 * hidden_size. `width_of_heads` is the multiple of hidden_size that all heads
    together have where the class fixes it. `layers` is the family's rule for its layers; the `has_` fields say whether
    its class reads that setting at all; `always_biased` that its query, key and value projections have a bias without one.
    `token_ids` are pad, bos and eos.
    """

    class_prefix: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int | None
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None
    head_dim: int | None
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    token_ids: tuple[int | None, int | None, int | None]
    rope: RopeRules
    layers: LayerRule
    hidden_act: HiddenAct = "silu"
    width_of_heads: int | None = None
    has_attention_bias: bool = False
    has_mlp_bias: bool = False
    always_biased: bool = False
    long_context: int | None = None
    mixers: Callable[[Fields, int], Mixers] | None = None


def _all_full(fields: Fields, num_layers: int) -> Layers:
    del fields
    kind: LayerType = "full_attention"
    return Layers(types=(kind,) * num_layers, rotated=(True,) * num_layers, window=None)


def _all_sliding(fields: Fields, num_layers: int, *, default: int | None = None) -> Layers:
    """Phi-3's and Mistral's rule: a window, where there is one, is that of every layer."""
    window = fields.optional_integer("sliding_window", default)
    kind: LayerType = "full_attention" if window is None else "sliding_attention"
    return Layers(types=(kind,) * num_layers, rotated=(True,) * num_layers, window=window)


def _sliding_after_full(fields: Fields, num_layers: int) -> Layers:
    """Qwen2's and Qwen3's rule: with `use_sliding_window`, the first `max_window_layers` are full and the rest slide."""
    is_on = fields.boolean("use_sliding_window", default=False)
    window = fields.optional_integer("sliding_window", 4096) if is_on else None
    first_sliding = fields.integer("max_window_layers", 28, minimum=0)
    slides = [layer >= first_sliding for layer in range(num_layers)]
    return Layers(types=_layer_types(fields, slides, window), rotated=(True,) * num_layers, window=window)


def _sliding_without_rope(fields: Fields, num_layers: int) -> Layers:
    """SmolLM3's rule: every `no_rope_layer_interval`-th layer, or those the list marks 0, have no rotary embedding, and
    with `use_sliding_window` only they slide."""
    interval = fields.integer("no_rope_layer_interval", 4)
    listed = fields.values.get("no_rope_layers")
    rotated = [(layer + 1) % interval != 0 for layer in range(num_layers)]
    if listed is not None:
        is_usable = isinstance(listed, list) and len(listed) >= num_layers and all(mark in (0, 1) for mark in listed)
        if not is_usable:
            raise fields.error(
                "no_rope_layers", f"a list of {num_layers} numbers, 1 for a layer with rotary embedding and 0 without"
            )
        rotated = [bool(mark) for mark in listed[:num_layers]]
    is_on = fields.boolean("use_sliding_window", default=False)
    window = fields.optional_integer("sliding_window", None) if is_on else None
    types = _layer_types(fields, [not is_rotated for is_rotated in rotated], window)
    return Layers(types=types, rotated=tuple(rotated), window=window)


def _layer_types(fields: Fields, slides: list[bool], window: int | None) -> tuple[LayerType, ...]:
    """An explicit list wins over the family's rule."""
    names = fields.strings("layer_types")
    if names is None:
        types: list[LayerType] = [
            "sliding_attention" if is_sliding and window is not None else "full_attention" for is_sliding in slides
        ]
        return tuple(types)
    if len(names) != len(slides):
        raise fields.error("layer_types", f"a list of num_hidden_layers ({len(slides)}) names")
    allowed: dict[str, LayerType] = {"full_attention": "full_attention", "sliding_attention": "sliding_attention"}
    if not set(names) <= set(allowed):
        raise fields.error("layer_types", f"a list of {' and '.join(allowed)}")
    if window is None and "sliding_attention" in names:
        raise fields.error("layer_types", "without sliding_attention where no sliding_window is in use")
    return tuple(allowed[name] for name in names)


_ZAMBA2_LAYERS = {"mamba": "mamba", "linear_attention": "mamba", "hybrid": "hybrid"}
_ZAMBA2_PATTERN = (
    ["mamba"]
    + (["mamba"] * 5 + ["hybrid"]) * 7
    + ["mamba"] * 4
    + ["hybrid"]
    + ["mamba"] * 3
    + ["hybrid"]
    + ["mamba"] * 2
)


def _hybrid(fields: Fields, num_layers: int) -> Layers:
    """Zamba2's rule: a list under one of two names, or the pattern of the 54-layer model."""
    name = "layers_block_type" if fields.values.get("layers_block_type") is not None else "layer_types"
    names = fields.strings(name) or _ZAMBA2_PATTERN
    if len(names) != num_layers:
        raise fields.error(name, f"a list of num_hidden_layers ({num_layers}) names; the default is one of 54")
    if not set(names) <= set(_ZAMBA2_LAYERS):
        raise fields.error(name, f"a list of {', '.join(_ZAMBA2_LAYERS)}")
    types: tuple[LayerType, ...] = tuple("hybrid" if each == "hybrid" else "mamba" for each in names)
    has_rope = fields.boolean("use_mem_rope", default=False)
    return Layers(types=types, rotated=tuple(has_rope and kind == "hybrid" for kind in types), window=None)


def _zamba2_mixers(fields: Fields, hidden_size: int) -> Mixers:
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
            chunk_size=fields.integer("chunk_size", 256, maximum=MAX_WIDTH),
            bias=fields.boolean("add_bias_linear", default=False),
        ),
        shared_blocks=SharedBlocksConfig(
            num_blocks=fields.integer("num_mem_blocks", 1, maximum=MAX_LAYERS),
            adapter_rank=fields.integer("adapter_rank", 128, maximum=MAX_WIDTH),
            has_attention_adapters=fields.boolean("use_shared_attention_adapter", default=False),
        ),
    )


FAMILIES: Mapping[str, Family] = {
    "smollm3": Family(
        class_prefix="SmolLM3",
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=11008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=None,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        token_ids=(128004, 128000, 128001),
        rope=RopeRules(theta=2e6),
        layers=_sliding_without_rope,
        has_attention_bias=True,
        has_mlp_bias=True,
    ),
    "helium": Family(
        class_prefix="Helium",
        vocab_size=48000,
        hidden_size=2560,
        intermediate_size=7040,
        num_hidden_layers=24,
        num_attention_heads=20,
        num_key_value_heads=20,
        head_dim=128,
        max_position_embeddings=4096,
        rms_norm_eps=1e-8,
        tie_word_embeddings=False,
        token_ids=(3, 1, 2),
        rope=RopeRules(theta=1e5),
        layers=_all_full,
        width_of_heads=1,
        has_attention_bias=True,
        has_mlp_bias=True,
    ),
    "qwen3": Family(
        class_prefix="Qwen3",
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=22016,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=128,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        token_ids=(None, None, None),
        rope=RopeRules(theta=1e4),
        layers=_sliding_after_full,
        has_attention_bias=True,
    ),
    "zamba2": Family(
        class_prefix="Zamba2",
        vocab_size=32000,
        hidden_size=2560,
        intermediate_size=None,
        num_hidden_layers=54,
        num_attention_heads=32,
        num_key_value_heads=None,
        head_dim=None,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        token_ids=(0, 1, 2),
        rope=RopeRules(theta=1e4),
        layers=_hybrid,
        hidden_act="gelu",
        width_of_heads=2,
        long_context=16384,
        mixers=_zamba2_mixers,
    ),
    "phi3": Family(
        class_prefix="Phi3",
        vocab_size=32064,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=None,
        head_dim=None,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        token_ids=(32000, 1, 32000),
        rope=RopeRules(
            theta=1e4,
            kinds=("default", "longrope"),
            renamed={"su": "longrope", "yarn": "longrope"},
            has_partial_rotary=True,
            original_context=4096,
        ),
        layers=_all_sliding,
    ),
    "llama": Family(
        class_prefix="Llama",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=None,
        head_dim=None,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        token_ids=(None, 1, 2),
        rope=RopeRules(theta=1e4),
        layers=_all_full,
        has_attention_bias=True,
        has_mlp_bias=True,
    ),
    "mistral": Family(
        class_prefix="Mistral",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=None,
        max_position_embeddings=131072,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        token_ids=(None, 1, 2),
        rope=RopeRules(theta=1e4),
        layers=partial(_all_sliding, default=4096),
    ),
    "qwen2": Family(
        class_prefix="Qwen2",
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=22016,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        head_dim=None,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        token_ids=(None, None, None),
        rope=RopeRules(theta=1e4),
        layers=_sliding_after_full,
        always_biased=True,
    ),
}
HIDDEN_ACTS = get_args(HiddenAct)
# Near namesakes that are other networks.
OTHERS: Mapping[str, str] = {
    "phi3small": "Phi-3-small (block-sparse attention)",
    "phimoe": "Phi-3.5-MoE",
    "phi3_v": "Phi-3-vision",
    "phi4mm": "Phi-4-multimodal",
    "phi4_multimodal": "Phi-4-multimodal",
    "phi4flash": "Phi-4-mini-flash",
    "llama4": "Llama 4",
    "llama4_text": "Llama 4",
    "mllama": "Llama 3.2 Vision",
    "mistral3": "Mistral 3 (with vision)",
    "mistral4": "Mistral 4",
    "ministral": "Ministral",
    "ministral3": "Ministral 3",
    "mixtral": "Mixtral",
    "qwen2_moe": "Qwen2-MoE",
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_audio": "Qwen2-Audio",
    "qwen3_moe": "Qwen3-MoE",
    "qwen3_next": "Qwen3-Next",
    "qwen3_vl": "Qwen3-VL",
    "zamba": "Zamba 1",
    "zamba2_vl": "Zamba2-VL",
}
