"""What each family's published configuration class fills in where config.json is silent. A family is one row of `FAMILIES`, and
its network is `models.networks.<model_type>`."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, TypeVar, get_args

from models.config.fields import ConfigFields
from models.config.layer_rules import LayerRule, all_full, all_sliding, sliding_after_full, sliding_without_rope
from models.config.option import Declared, check_options, declared
from models.config.rope import RopeRules
from models.config.types import HiddenAct, Mixers
from models.config.zamba2 import Zamba2Options, hybrid_layers
from models.config.zamba2 import mixers as zamba2_mixers
from models.errors import OptionError


@dataclass(frozen=True, kw_only=True, slots=True)
class NoOptions:
    """The options of a family that has none of its own."""


Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True, slots=True)
class Family(Generic[Options]):
    """Class defaults of one `model_type`.

    `head_dim` None is hidden_size // num_attention_heads, `num_key_value_heads` None is num_attention_heads and
    `intermediate_size` None is 4 * hidden_size. `width_of_heads` is the multiple of hidden_size that all heads
    together have where the class fixes it. `layers` is the family's rule for its layers; the `has_` fields say whether
    its class reads that setting at all; `always_biased` that its query, key and value projections have a bias without one.
    `has_retrievers` says that embedders and rerankers of the family were published that are asked by instructions, in
    Qwen3-Embedding's and Qwen3-Reranker's form.
    `token_ids` are pad, bos and eos. `options` declares what may be chosen of its networks alone.
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
    has_retrievers: bool = False
    mixers: Callable[[ConfigFields, int, Options], Mixers] | None = None
    options: type[Options]

    def choose(self, given: Mapping[str, object]) -> Options:
        """Its own options with these values, and the others' defaults.

        Raises:
            OptionError: it has no such option, or the value is not allowed.
        """
        known = declared(self.options)
        for name, value in given.items():
            if name not in known:
                raise OptionError(name, f"was {value!r}; {self.class_prefix} {_without(name, tuple(known))}")
        chosen = self.options(**given)
        check_options(chosen)
        return chosen


def _without(name: str, known: tuple[str, ...]) -> str:
    """Why a family takes no option of this name, and what to do."""
    if not known:
        return "has no options of its own: leave it out"
    close = difflib.get_close_matches(name, known, n=1)
    return f"has no such option{f'; did you mean {close[0]}?' if close else ':'} it has {', '.join(known)}"


FAMILIES: Mapping[str, Family[Any]] = {
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
        layers=sliding_without_rope,
        has_attention_bias=True,
        has_mlp_bias=True,
        options=NoOptions,
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
        layers=all_full,
        width_of_heads=1,
        has_attention_bias=True,
        has_mlp_bias=True,
        options=NoOptions,
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
        layers=sliding_after_full,
        has_attention_bias=True,
        options=NoOptions,
        has_retrievers=True,
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
        layers=hybrid_layers,
        hidden_act="gelu",
        width_of_heads=2,
        long_context=16384,
        mixers=zamba2_mixers,
        options=Zamba2Options,
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
        layers=all_sliding,
        options=NoOptions,
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
        layers=all_full,
        has_attention_bias=True,
        has_mlp_bias=True,
        options=NoOptions,
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
        layers=partial(all_sliding, default=4096),
        options=NoOptions,
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
        layers=sliding_after_full,
        always_biased=True,
        options=NoOptions,
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


def family_options() -> Mapping[str, Declared]:
    """Every family's own options by their names. One that several families have is declared once."""
    return MappingProxyType(
        {name: each for family in FAMILIES.values() for name, each in declared(family.options).items()}
    )


def with_old_spelling(given: Mapping[str, Any], mamba_dt_clamp: str) -> dict[str, Any]:
    """A family's options with the one that had a name of its own before families declared theirs, and which any network took
    as long as it was the default.

    Raises:
        OptionError: it is given in both ways.
    """
    old = asked({"mamba_dt_clamp": mamba_dt_clamp})
    if old and "mamba_dt_clamp" in given:
        raise OptionError("mamba_dt_clamp", "stands beside the model's options, which have it too: give it there alone")
    return {**given, **old}


def asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some families' options that ask for something else than their default, in the order of their names."""
    known = family_options()
    return {name: given[name] for name in sorted(given) if name not in known or given[name] != known[name].default}
