"""What a checkpoint says about itself: `config.json` and `generation_config.json`, in their old and new spellings.

Everything a network is built from, with the class defaults of its family (`models.config.families`) filled in and every
value checked. Knows nothing of tensors.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from models.checkpoint.place import description_folder
from models.config.families import FAMILIES, HIDDEN_ACTS, OTHERS, Family
from models.config.fields import ConfigFields
from models.config.limits import (
    MAX_HEAD_DIM,
    MAX_HEADS,
    MAX_LABELS,
    MAX_LAYERS,
    MAX_POSITIONS,
    MAX_VOCABULARY,
    MAX_WIDTH,
)
from models.config.quantization import QuantizationConfig, read_quantization
from models.config.rope import read_rope
from models.config.sentence_files import MODULES_FILE
from models.config.types import (
    Dtype,
    Head,
    HiddenAct,
    LayerType,
    MambaConfig,
    ProblemType,
    RopeConfig,
    SharedBlocksConfig,
)

logger = logging.getLogger(__name__)

_BARE = "Model"
_HEADS: Mapping[str, Head] = {
    "ForCausalLM": "causal",
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    _BARE: "causal",
}
TWO_WAY = (
    "its attention looks both ways (is_causal: false or use_bidirectional_attention: true in config.json), so that it can be "
    "used for classification, extraction and embeddings, and not to generate"
)
"""Why a network has no causal head, after a text that names it."""

NO_HEAD = f"{TWO_WAY}; or it was published as a bare network with modules.json, which makes embeddings"
"""Why a checkpoint has no task head, after a text that names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A network's shape and a checkpoint's token ids, as the published files have them.

    `rotated_layers` says which layers turn queries and keys by position. `sliding_window` counts
    visible keys, the query's own included, on the layers of type "sliding_attention"; None
    switches it off. `mamba` and `shared_blocks` are None except for a hybrid network. Unless
    `is_causal`, a query sees the keys after it too; such a network makes no text, and its causal
    head is left out; so is that of a bare network that sentence-transformers wrote. `dtype` is the
    one the checkpoint names, float32 where it names none. `eos_token_ids` come from
    generation_config.json where that names any, since config.json often lists only one of them.
    `num_labels` is that of the classification heads. `quantization` says how the checkpoint's
    weights are quantized already; None if they are not.
    """

    model_type: str
    architecture: str
    head: Head
    is_causal: bool
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
    rotated_layers: tuple[bool, ...]
    mamba: MambaConfig | None
    shared_blocks: SharedBlocksConfig | None
    dtype: Dtype
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    num_labels: int
    id2label: Mapping[int, str]
    problem_type: ProblemType | None
    quantization: QuantizationConfig | None

    @property
    def longest_context(self) -> int:
        """Positions that the rotary embedding is made for: a scaled one reaches beyond `max_position_embeddings`."""
        parameters = self.rope.parameters
        if self.rope.kind in ("default", "longrope"):
            return self.max_position_embeddings
        original = parameters.get("original_max_position_embeddings", self.max_position_embeddings)
        return max(self.max_position_embeddings, int(original * parameters["factor"]))

    @classmethod
    def from_pretrained(cls, path: str | Path, options: Mapping[str, Any] = MappingProxyType({})) -> "ModelConfig":
        """Reads a checkpoint's description; `path` is whatever `models.checkpoint.place` finds, `options` are of its family's own.

        Raises:
            CheckpointError: the place cannot be read.
            ConfigError: a file is absent or no JSON object, the family is unknown, or a value cannot be used.
            OptionError: the family has no such option, or it cannot be what was given.
        """
        folder = description_folder(path)
        fields = ConfigFields.read(folder / "config.json")
        generation = folder / "generation_config.json"
        found = ConfigFields.read(generation) if generation.exists() else ConfigFields(file=generation, values={})
        return _resolve(fields, found, options, has_modules=(folder / MODULES_FILE).exists())


def _resolve(
    fields: ConfigFields, generation: ConfigFields, options: Mapping[str, Any], *, has_modules: bool
) -> ModelConfig:
    """Fills the class defaults in and checks every value."""
    model_type = _model_type(fields)
    family = FAMILIES[model_type]
    chosen = family.choose(options)
    architecture = _architecture(fields, family)
    hidden_size = fields.integer("hidden_size", family.hidden_size, maximum=MAX_WIDTH)
    num_layers = fields.integer("num_hidden_layers", family.num_hidden_layers, maximum=MAX_LAYERS)
    num_heads = fields.integer("num_attention_heads", family.num_attention_heads, maximum=MAX_HEADS)
    head_dim = _head_dim(fields, family, hidden_size, num_heads)
    layers = family.layers(fields, num_layers)
    mixers = None if family.mixers is None else family.mixers(fields, hidden_size, chosen)
    max_positions = fields.integer("max_position_embeddings", family.max_position_embeddings, maximum=MAX_POSITIONS)
    if family.long_context is not None and fields.boolean("use_long_context", default=False):
        max_positions = family.long_context
    pad, bos, eos = family.token_ids
    id2label = _id2label(fields)
    is_causal = _is_causal(fields)
    is_tied = fields.boolean("tie_word_embeddings", default=family.tie_word_embeddings)
    is_bare = architecture == family.class_prefix + _BARE and has_modules and not is_tied
    return ModelConfig(
        model_type=model_type,
        architecture=architecture,
        head=_head(architecture, family, is_causal=is_causal, is_bare=is_bare),
        is_causal=is_causal,
        vocab_size=fields.integer("vocab_size", family.vocab_size, maximum=MAX_VOCABULARY),
        hidden_size=hidden_size,
        intermediate_size=fields.integer(
            "intermediate_size", family.intermediate_size or 4 * hidden_size, maximum=MAX_WIDTH
        ),
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=_num_key_value_heads(fields, family, num_heads),
        head_dim=head_dim,
        hidden_act=fields.choice("hidden_act", HIDDEN_ACTS, family.hidden_act),
        max_position_embeddings=max_positions,
        rms_norm_eps=fields.number("rms_norm_eps", family.rms_norm_eps),
        tie_word_embeddings=is_tied,
        attention_bias=family.always_biased
        or (family.has_attention_bias and fields.boolean("attention_bias", default=False)),
        mlp_bias=family.has_mlp_bias and fields.boolean("mlp_bias", default=False),
        rope=read_rope(fields, family.rope, head_dim=head_dim, max_positions=max_positions),
        sliding_window=layers.window,
        layer_types=layers.types,
        rotated_layers=layers.rotated,
        mamba=None if mixers is None else mixers.mamba,
        shared_blocks=None if mixers is None else mixers.shared_blocks,
        dtype=_dtype(fields),
        pad_token_id=fields.token_id("pad_token_id", pad),
        bos_token_id=fields.token_id("bos_token_id", bos),
        eos_token_ids=generation.token_ids("eos_token_id") or fields.token_ids("eos_token_id", eos),
        num_labels=len(id2label),
        id2label=id2label,
        problem_type=_problem_type(fields),
        quantization=read_quantization(fields),
    )


def _model_type(fields: ConfigFields) -> str:
    given = fields.values.get("model_type")
    if isinstance(given, str) and given in OTHERS:
        raise fields.error(
            "model_type", f"one of {', '.join(FAMILIES)}", note=f": {OTHERS[given]}, another network despite its name"
        )
    return fields.choice("model_type", tuple(FAMILIES))


def _architecture(fields: ConfigFields, family: Family[Any]) -> str:
    """The first published class name; the causal model where the file names none."""
    allowed = tuple(family.class_prefix + suffix for suffix in _HEADS)
    names = fields.strings("architectures")
    if names and names[0] not in allowed:
        raise fields.error("architectures", f"a list that begins with one of {', '.join(allowed)}")
    return names[0] if names else allowed[0]


def _is_causal(fields: ConfigFields) -> bool:
    """Whether queries see only the keys before them, under the name that transformers reads, or that of networks with code of their own."""
    is_two_way = fields.boolean("use_bidirectional_attention", default=False)
    is_causal = fields.boolean("is_causal", default=not is_two_way)
    if is_two_way and is_causal:
        raise fields.error("is_causal", "false or absent beside use_bidirectional_attention: true")
    return is_causal


def _head(architecture: str, family: Family[Any], *, is_causal: bool, is_bare: bool) -> Head:
    """The head that the architecture names; the bare network of some is causal, with the embedding's weights as its head."""
    head = _HEADS[architecture.removeprefix(family.class_prefix)]
    return "embedding" if head == "causal" and (is_bare or not is_causal) else head


def _head_dim(fields: ConfigFields, family: Family[Any], hidden_size: int, num_heads: int) -> int:
    """Zamba2's is always its share of twice the hidden size; the others may name one."""
    width = (family.width_of_heads or 1) * hidden_size
    derives = family.mixers is not None or (fields.values.get("head_dim") is None and family.head_dim is None)
    if derives and width % num_heads:
        raise fields.error("hidden_size", f"divisible by num_attention_heads ({num_heads}), or head_dim must be given")
    own = None if family.mixers is not None else family.head_dim
    head_dim = (
        width // num_heads
        if family.mixers is not None
        else fields.integer("head_dim", own or width // num_heads, maximum=MAX_HEAD_DIM)
    )
    if head_dim % 2 or head_dim < 1:
        raise fields.error("head_dim", "even: rotary embeddings turn channels in pairs")
    if family.width_of_heads is not None and num_heads * head_dim != width:
        raise fields.error("head_dim", f"{width} / num_attention_heads ({num_heads}), the width o_proj takes")
    return head_dim


def _num_key_value_heads(fields: ConfigFields, family: Family[Any], num_heads: int) -> int:
    if "num_key_value_heads" in fields.values or family.num_key_value_heads is None:
        count = fields.integer("num_key_value_heads", num_heads, maximum=MAX_HEADS)
    else:
        count = family.num_key_value_heads
    if num_heads % count:
        given = "" if "num_key_value_heads" in fields.values else f" (absent, so {count}, the class default)"
        raise fields.error("num_key_value_heads", f"a divisor of num_attention_heads, {num_heads}", note=given)
    return count


def _dtype(fields: ConfigFields) -> Dtype:
    name = "dtype" if fields.values.get("dtype") is not None else "torch_dtype"
    return fields.choice(name, get_args(Dtype), "float32")


def _id2label(fields: ConfigFields) -> dict[int, str]:
    """Class names by class number: `id2label`, or LABEL_0 to LABEL_{num_labels - 1}."""
    named = fields.nested("id2label").values
    if not named:
        return {index: f"LABEL_{index}" for index in range(fields.integer("num_labels", 2, maximum=MAX_LABELS))}
    if len(named) > MAX_LABELS:
        raise fields.error("id2label", f"an object of at most {MAX_LABELS:,} class names")
    is_name = all(isinstance(value, str | int | float) for value in named.values())
    if not is_name or not all(key.isascii() and key.isdecimal() and len(key) < 10 for key in named):
        raise fields.error("id2label", "an object from class numbers to class names")
    labels = {int(key): str(value) for key, value in named.items()}
    if set(labels) != set(range(len(named))):
        raise fields.error("id2label", f"an object with the keys 0 to {len(named) - 1}, each once")
    if fields.integer("num_labels", len(labels)) != len(labels):
        logger.warning("%s: id2label names %d classes and wins over num_labels", fields.file, len(labels))
    return dict(sorted(labels.items()))


def _problem_type(fields: ConfigFields) -> ProblemType | None:
    if fields.values.get("problem_type") is None:
        return None
    kind: ProblemType = fields.choice("problem_type", get_args(ProblemType))
    return kind
