"""What a checkpoint says about itself: `config.json` and `generation_config.json`, in their old and new spellings.

Everything a network is built from, with the class defaults of its family filled in and every value checked. Knows
nothing of tensors. A family is one row of `_FAMILIES`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from models.config_file import Fields

logger = logging.getLogger(__name__)

Head = Literal["causal", "sequence-classification", "token-classification", "question-answering"]
HiddenAct = Literal["silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2"]
Dtype = Literal["bfloat16", "float16", "float32"]
LayerType = Literal["full_attention", "sliding_attention"]
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]

_HEADS: Mapping[str, Head] = {
    "ForCausalLM": "causal",
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "Model": "causal",
}
# What each kind of rotary embedding cannot do without, next to theta.
_ROPE_KINDS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
_ROPE_KINDS_WITH_ORIGINAL_CONTEXT = ("yarn", "llama3", "longrope")


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Rotary position embedding: kind, base, the rotated part of each head, and what the kind needs besides.

    `parameters` is the published dict with `rope_theta` and `rope_type` filled in, and for the kinds that scale from
    a shorter context `original_max_position_embeddings` too; yarn always has its `factor`.
    """

    kind: str = "default"
    theta: float
    partial_rotary_factor: float = 1.0
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A network's shape and a checkpoint's token ids, as the published files have them.

    `sliding_window` counts visible keys, the query's own included, on the layers of type "sliding_attention"; None
    switches it off. `dtype` is the one the checkpoint names, float32 where it names none. `eos_token_ids` come from
    generation_config.json where that names any, since config.json often lists only one of them. `num_labels` is that
    of the classification heads.
    """

    model_type: str
    architecture: str
    head: Head
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_act: HiddenAct
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    rope: RopeConfig
    sliding_window: int | None
    layer_types: tuple[LayerType, ...]
    dtype: Dtype
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    num_labels: int
    id2label: Mapping[int, str]
    problem_type: ProblemType | None

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "ModelConfig":
        """Reads a checkpoint folder.

        Raises:
            ConfigError: a file is absent or no JSON object, the family is unknown, or a value cannot be used.
        """
        folder = Path(path)
        fields = Fields.read(folder / "config.json")
        generation = folder / "generation_config.json"
        return _resolve(fields, Fields.read(generation) if generation.exists() else Fields(file=generation, values={}))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Windows:
    """Which layers see only the last `size` keys."""

    size: int | None
    layer_types: tuple[LayerType, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Family:
    """What a family's published configuration class fills in where config.json is silent.

    `head_dim` None is hidden_size // num_attention_heads; `num_key_value_heads` None is num_attention_heads.
    `windows` is the family's rule for sliding attention; the `has_` fields say whether its class reads that setting
    at all, the original context beside the rope dict.
    """

    class_prefix: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None
    head_dim: int | None
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    has_attention_bias: bool
    has_mlp_bias: bool
    has_partial_rotary: bool
    has_original_context: bool
    rope_kinds: tuple[str, ...]
    windows: Callable[[Fields, int], _Windows]


def _windows_after_full_layers(fields: Fields, num_layers: int) -> _Windows:
    """Qwen3's rule: with `use_sliding_window`, the first `max_window_layers` are full and the rest slide."""
    is_on = fields.boolean("use_sliding_window", default=False)
    size = fields.optional_integer("sliding_window", 4096) if is_on else None
    first_sliding = fields.integer("max_window_layers", 28, minimum=0)
    computed: list[LayerType] = [
        "sliding_attention" if size is not None and layer >= first_sliding else "full_attention"
        for layer in range(num_layers)
    ]
    return _Windows(size=size, layer_types=_layer_types(fields, tuple(computed), size))


_FAMILIES: Mapping[str, _Family] = {
    "qwen3": _Family(
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
        rope_theta=10000.0,
        tie_word_embeddings=False,
        has_attention_bias=True,
        has_mlp_bias=False,
        has_partial_rotary=False,
        has_original_context=False,
        rope_kinds=tuple(_ROPE_KINDS),
        windows=_windows_after_full_layers,
    ),
}


def _resolve(fields: Fields, generation: Fields) -> ModelConfig:
    """Fills the class defaults in and checks every value."""
    model_type = fields.choice("model_type", tuple(_FAMILIES))
    family = _FAMILIES[model_type]
    architecture = _architecture(fields, family)
    hidden_size = fields.integer("hidden_size", family.hidden_size)
    num_layers = fields.integer("num_hidden_layers", family.num_hidden_layers)
    num_heads = fields.integer("num_attention_heads", family.num_attention_heads)
    head_dim = _head_dim(fields, family, hidden_size, num_heads)
    windows = family.windows(fields, num_layers)
    id2label = _id2label(fields)
    if fields.values.get("quantization_config"):
        raise fields.error(
            "quantization_config", "absent: give the unquantized checkpoint, to be quantized while loading"
        )
    return ModelConfig(
        model_type=model_type,
        architecture=architecture,
        head=_HEADS[architecture.removeprefix(family.class_prefix)],
        vocab_size=fields.integer("vocab_size", family.vocab_size),
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size", family.intermediate_size),
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=_num_key_value_heads(fields, family, num_heads),
        head_dim=head_dim,
        hidden_act=fields.choice("hidden_act", get_args(HiddenAct), "silu"),
        max_position_embeddings=fields.integer("max_position_embeddings", family.max_position_embeddings),
        rms_norm_eps=fields.number("rms_norm_eps", family.rms_norm_eps),
        tie_word_embeddings=fields.boolean("tie_word_embeddings", default=family.tie_word_embeddings),
        attention_bias=family.has_attention_bias and fields.boolean("attention_bias", default=False),
        mlp_bias=family.has_mlp_bias and fields.boolean("mlp_bias", default=False),
        rope=_rope(fields, family, head_dim),
        sliding_window=windows.size,
        layer_types=windows.layer_types,
        dtype=_dtype(fields),
        pad_token_id=fields.token_id("pad_token_id"),
        bos_token_id=fields.token_id("bos_token_id"),
        eos_token_ids=generation.token_ids("eos_token_id") or fields.token_ids("eos_token_id"),
        num_labels=len(id2label),
        id2label=id2label,
        problem_type=_problem_type(fields, len(id2label)),
    )


def _architecture(fields: Fields, family: _Family) -> str:
    """The first published class name; the causal model where the file names none."""
    allowed = tuple(family.class_prefix + suffix for suffix in _HEADS)
    names = fields.strings("architectures")
    if names and names[0] not in allowed:
        raise fields.error("architectures", f"a list that begins with one of {', '.join(allowed)}")
    return names[0] if names else allowed[0]


def _head_dim(fields: Fields, family: _Family, hidden_size: int, num_heads: int) -> int:
    if fields.values.get("head_dim") is None and family.head_dim is None and hidden_size % num_heads:
        raise fields.error("hidden_size", f"divisible by num_attention_heads ({num_heads}), or head_dim must be given")
    head_dim = fields.integer("head_dim", family.head_dim or hidden_size // num_heads)
    if head_dim % 2:
        raise fields.error("head_dim", "even: rotary embeddings turn channels in pairs")
    return head_dim


def _num_key_value_heads(fields: Fields, family: _Family, num_heads: int) -> int:
    if "num_key_value_heads" in fields.values or family.num_key_value_heads is None:
        count = fields.integer("num_key_value_heads", num_heads)
    else:
        count = family.num_key_value_heads
    if num_heads % count:
        given = "" if "num_key_value_heads" in fields.values else f" (absent, so {count}, the class default)"
        raise fields.error("num_key_value_heads", f"a divisor of num_attention_heads, {num_heads}", note=given)
    return count


def _layer_types(fields: Fields, computed: tuple[LayerType, ...], window: int | None) -> tuple[LayerType, ...]:
    """An explicit list wins over the family's rule."""
    names = fields.strings("layer_types")
    if names is None:
        return computed
    if len(names) != len(computed):
        raise fields.error("layer_types", f"a list of num_hidden_layers ({len(computed)}) names")
    allowed: dict[str, LayerType] = {name: name for name in get_args(LayerType)}
    if not set(names) <= set(allowed):
        raise fields.error("layer_types", f"a list of {' and '.join(allowed)}")
    if window is None and "sliding_attention" in names:
        raise fields.error("layer_types", "without sliding_attention where no sliding_window is in use")
    return tuple(allowed[name] for name in names)


def _rope(fields: Fields, family: _Family, head_dim: int) -> RopeConfig:
    """Old and new spelling to one.

    `rope_scaling` if it holds anything, else `rope_parameters`; a value inside the dict wins over one beside it.
    """
    name = "rope_scaling" if fields.values.get("rope_scaling") else "rope_parameters"
    rope = fields.nested(name)
    parameters = dict(rope.values)
    if any(isinstance(value, Mapping) for value in parameters.values()):
        raise fields.error(name, "one set of parameters; a set for each layer type is not supported")
    kind = rope.choice("type" if rope.values.get("rope_type") is None else "rope_type", family.rope_kinds, "default")
    theta = rope.number("rope_theta", fields.number("rope_theta", family.rope_theta))
    partial = _partial_rotary_factor(fields, rope, head_dim) if family.has_partial_rotary else 1.0
    for needed in _ROPE_KINDS[kind]:
        _check_rope_value(rope, kind, needed, int(head_dim * partial) // 2)
    parameters |= {"rope_type": kind, "rope_theta": theta}
    if kind in _ROPE_KINDS_WITH_ORIGINAL_CONTEXT:
        context = fields.integer("max_position_embeddings", family.max_position_embeddings)
        inside = rope.integer("original_max_position_embeddings", context)
        original = fields.integer("original_max_position_embeddings", inside) if family.has_original_context else inside
        parameters["original_max_position_embeddings"] = original
        if kind == "yarn":
            parameters["factor"] = rope.number("factor", context / original)
    return RopeConfig(kind=kind, theta=theta, partial_rotary_factor=partial, parameters=parameters)


def _partial_rotary_factor(fields: Fields, rope: Fields, head_dim: int) -> float:
    factor = rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0))
    num_rotated = int(head_dim * factor)
    if not 0 < num_rotated <= head_dim or num_rotated % 2:
        raise rope.error("partial_rotary_factor", f"at most 1, and make an even part of head_dim {head_dim}")
    return factor


def _check_rope_value(rope: Fields, kind: str, name: str, num_frequencies: int) -> None:
    value = rope.values.get(name)
    if name in ("short_factor", "long_factor"):
        if not isinstance(value, list) or len(value) != num_frequencies:
            raise rope.error(name, f"a list of {num_frequencies} numbers, half the rotated channels, for {kind}")
    elif value is None:
        raise rope.error(name, f"a number for rope_type {kind}")
    else:
        rope.number(name, 1.0)


def _dtype(fields: Fields) -> Dtype:
    name = "dtype" if fields.values.get("dtype") is not None else "torch_dtype"
    return fields.choice(name, get_args(Dtype), "float32")


def _id2label(fields: Fields) -> dict[int, str]:
    """Class names by class number: `id2label`, or LABEL_0 to LABEL_{num_labels - 1}."""
    named = fields.nested("id2label").values
    if not named:
        return {index: f"LABEL_{index}" for index in range(fields.integer("num_labels", 2))}
    try:
        labels = {int(key): str(value) for key, value in named.items()}
    except ValueError as error:
        raise fields.error("id2label", "an object from class numbers to class names") from error
    if set(labels) != set(range(len(named))):
        raise fields.error("id2label", f"an object with the keys 0 to {len(named) - 1}, each once")
    if fields.integer("num_labels", len(labels)) != len(labels):
        logger.warning("%s: id2label names %d classes and wins over num_labels", fields.file, len(labels))
    return dict(sorted(labels.items()))


def _problem_type(fields: Fields, num_labels: int) -> ProblemType | None:
    if fields.values.get("problem_type") is None:
        return None
    kind: ProblemType = fields.choice("problem_type", get_args(ProblemType))
    if kind == "single_label_classification" and num_labels == 1:
        raise fields.error("problem_type", "regression or multi_label_classification, since there is one label only")
    return kind
