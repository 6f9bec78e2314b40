"""How weights are quantized: what a user asks for, and what a checkpoint that is quantized already says of itself.

The methods are those of bitsandbytes: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339), nf4 and fp4 in blocks
with an optional second quantization of the blocks' scales (QLoRA, Dettmers et al. 2023, arXiv:2305.14314). Knows
nothing of tensors.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from typing import Any, Literal, get_args

from models.checkpoint.other_layouts import quantized_by
from models.config.fields import ConfigFields
from models.config.types import Dtype
from models.errors import ConfigError

Method = Literal["int8", "nf4", "fp4"]

METHODS: tuple[Method, ...] = get_args(Method)
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DEFAULT_BLOCK_SIZE = 64
DEFAULT_INT8_THRESHOLD = 6.0
TASK_HEADS = ("lm_head", "score", "qa_outputs")

_FOUR_BIT_ONLY = ("double_quantization", "compute_dtype", "block_size")
_MODULE_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizationConfig:
    """What to do with the weights of linear layers; embeddings, norms and convolutions are never quantized.

    None stands for the default, or for what a checkpoint that is quantized already has. `double_quantization` (4-bit
    only, default false) quantizes the scales of the blocks in turn; `compute_dtype` (4-bit only) is what products are
    computed in, by default the model's dtype; `block_size` (4-bit only, default 64) counts the weights that share a
    scale. Inputs of at least `int8_threshold` (int8 only, default 6.0; 0 switches it off) are multiplied unquantized.
    `skipped_modules` are kept as they are: names as published, whole (`lm_head`), from the front
    (`model.layers.0`) or from the back (`mlp.down_proj`); by default the task heads.

    Raises:
        ConfigError: a value cannot be used, or not with this method.
    """

    method: Method
    double_quantization: bool | None = None
    compute_dtype: Dtype | None = None
    block_size: int | None = None
    int8_threshold: float | None = None
    skipped_modules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self._check_choice("method", METHODS)
        self._check_choice("double_quantization", (None, True, False))
        self._check_choice("compute_dtype", (None, *get_args(Dtype)))
        self._check_choice("block_size", (None, *BLOCK_SIZES))
        foreign = _FOUR_BIT_ONLY if self.method == "int8" else ("int8_threshold",)
        for name in foreign:
            if getattr(self, name) is not None:
                raise ConfigError(f"quantization.{name} has no meaning for method {self.method}; leave it out")
        threshold = self.int8_threshold
        if threshold is not None and not (_is_number(threshold) and 0 <= threshold < math.inf):
            raise ConfigError(f"quantization.int8_threshold was {threshold!r}; it must be a finite number, 0 or more")
        for name in self.skipped_modules or ():
            if not isinstance(name, str) or not _MODULE_NAME.fullmatch(name):
                raise ConfigError(
                    f"quantization.skipped_modules holds {name!r}; it must hold names of modules, such as lm_head or "
                    "mlp.down_proj, without wildcards"
                )

    @classmethod
    def of(cls, given: "str | Mapping[str, Any] | QuantizationConfig") -> "QuantizationConfig":
        """A method's name alone, or a mapping with the names of the fields.

        Raises:
            ConfigError: it is neither, or a value cannot be used.
        """
        if isinstance(given, QuantizationConfig):
            return given
        if isinstance(given, str):
            return cls(method=given)  # type: ignore[arg-type]  # checked there
        names = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping) or "method" not in given:
            raise ConfigError(f"quantization was {given!r}; it must be one of {', '.join(METHODS)}, or have a method")
        unknown = [str(name) for name in given if name not in names]
        if unknown:
            raise ConfigError(f"quantization has no {', '.join(unknown)}; its keys are {', '.join(names)}")
        skipped = given.get("skipped_modules")
        if skipped is not None and not isinstance(skipped, list | tuple):
            raise ConfigError(f"quantization.skipped_modules was {skipped!r}; it must be a list of names")
        return cls(**{**given, "skipped_modules": None if skipped is None else tuple(skipped)})

    def skips(self, name: str) -> bool:
        """Whether the module of this published name is kept as it is."""
        skipped = TASK_HEADS if self.skipped_modules is None else self.skipped_modules
        return any(f"{name}.".startswith(f"{each}.") or name.endswith(each) for each in skipped)

    def _check_choice(self, name: str, allowed: tuple[Any, ...]) -> None:
        value = getattr(self, name)
        if not any(value is each or (type(value) is type(each) and value == each) for each in allowed):
            listed = ", ".join("null" if each is None else str(each) for each in allowed)
            raise ConfigError(f"quantization.{name} was {value!r}; it must be one of {listed}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_quantization(config: ConfigFields) -> QuantizationConfig | None:
    """The `quantization_config` of a config.json as bitsandbytes' users write it, None if it is
    absent.

    Which tensors are quantized is not read here: the checkpoint's files show it.

    Raises:
        ConfigError: another method made the checkpoint, or a value cannot be used.
    """
    for name in ("quantization", "compression_config"):  # what MLX writes, and compressed-tensors wrote
        if config.nested(name).values and not config.nested("quantization_config").values:
            whose = "MLX" if name == "quantization" else "compressed-tensors"
            raise config.error(
                name,
                "absent: give the unquantized checkpoint",
                note=f", the settings of weights that {whose} quantized",
            )
    saved = config.nested("quantization_config")
    if not saved.values:
        return None
    is_int8, is_four_bit = (_flag(saved, f"load_in_{bits}bit") for bits in (8, 4))
    method = saved.values.get("quant_method", "bitsandbytes" if is_int8 or is_four_bit else None)
    if method not in ("bitsandbytes", "bitsandbytes_8bit", "bitsandbytes_4bit"):
        raise saved.error(
            "quant_method",
            "bitsandbytes: give a checkpoint that is quantized with it, or the unquantized one to be quantized while loading",
            note=quantized_by(method, saved.values),
        )
    if is_int8 == is_four_bit:
        raise saved.error("load_in_8bit", "true, or load_in_4bit, and not both")
    if is_four_bit:
        return QuantizationConfig(
            method=saved.choice("bnb_4bit_quant_type", ("nf4", "fp4"), "fp4"),
            double_quantization=saved.boolean("bnb_4bit_use_double_quant", default=False),
            compute_dtype=saved.choice("bnb_4bit_compute_dtype", get_args(Dtype), "float32"),
        )
    if saved.boolean("llm_int8_has_fp16_weight", default=False):
        raise saved.error("llm_int8_has_fp16_weight", "false: weights in half precision are not quantized")
    threshold = saved.values.get("llm_int8_threshold", DEFAULT_INT8_THRESHOLD)
    if not (_is_number(threshold) and 0 <= threshold < math.inf):
        raise saved.error("llm_int8_threshold", "a finite number, 0 or more")
    return QuantizationConfig(method="int8", int8_threshold=float(threshold))


def _flag(saved: ConfigFields, name: str) -> bool:
    """Written as `load_in_8bit` by hand, as `_load_in_8bit` too by transformers."""
    return saved.boolean(name, default=saved.boolean(f"_{name}", default=False))


def choose_quantization(
    asked: "str | QuantizationConfig | None", saved: QuantizationConfig | None
) -> QuantizationConfig | None:
    """What a model is loaded with: what was asked for, over what its checkpoint is saved with; None: nothing.

    Raises:
        ConfigError: the request cannot be used, contradicts the checkpoint, or bitsandbytes is not installed.
    """
    wanted = None if asked is None else QuantizationConfig.of(asked)
    chosen = saved if wanted is None else wanted if saved is None else _over(saved, wanted)
    if chosen is not None and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{chosen.method} weights need the package bitsandbytes, which is not installed here: pip install "
            "bitsandbytes, or give an unquantized checkpoint and leave quantization out"
        )
    return chosen


def _over(saved: QuantizationConfig, wanted: QuantizationConfig) -> QuantizationConfig:
    """A saved checkpoint's settings with those of the request that do not touch what is stored."""
    for name in ("method", "double_quantization"):
        asked, stored = getattr(wanted, name), getattr(saved, name)
        if asked is not None and asked != stored:
            raise ConfigError(
                f"quantization.{name} was {asked!r}, but the checkpoint is quantized already, with {stored!r}: leave "
                "quantization out, or give the unquantized checkpoint"
            )
    for name in ("block_size", "skipped_modules"):
        if getattr(wanted, name) is not None:
            raise ConfigError(
                f"quantization.{name} was given, but the checkpoint is quantized already and its files say that: leave "
                "it out, or give the unquantized checkpoint"
            )
    asked = {name: getattr(wanted, name) for name in ("compute_dtype", "int8_threshold")}
    return replace(saved, **{name: value for name, value in asked.items() if value is not None})
