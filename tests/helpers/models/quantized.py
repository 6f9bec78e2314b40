"""The oracle of quantization: transformers' networks over weights that the published formulas give (see `formulas`).

Which layers are quantized, and what a saved checkpoint looks like, is transformers' with bitsandbytes. What bitsandbytes
computes is no oracle: on some processors its 4-bit layers are wrong for many shapes.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BitsAndBytesConfig,
)
from transformers.quantizers import quantizer_bnb_4bit, quantizer_bnb_8bit

from tests.helpers.models import formulas

CLASSES: dict[str, Any] = {
    "causal": AutoModelForCausalLM,
    "sequence-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
}
Config: Any = BitsAndBytesConfig
METHODS: dict[str, dict[str, Any]] = {
    "int8": {"method": "int8"},
    "int8 without outliers": {"method": "int8", "int8_threshold": 0.0},
    "int8 with many outliers": {"method": "int8", "int8_threshold": 0.8},
    "nf4": {"method": "nf4"},
    "fp4": {"method": "fp4"},
    "nf4 twice": {"method": "nf4", "double_quantization": True},
    "fp4 twice": {"method": "fp4", "double_quantization": True},
}
TASK_HEADS = ["lm_head", "score", "qa_outputs"]
Multiply = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def without_accelerate() -> Iterator[None]:
    """transformers asks for accelerate before it quantizes, but uses it only to spread a model over devices."""
    modules = (quantizer_bnb_4bit, quantizer_bnb_8bit)
    first, second = (patch.object(module, "is_accelerate_available", lambda: True) for module in modules)
    with first, second:
        yield


def bnb_config(settings: dict[str, Any]) -> Any:
    """The same settings in transformers' words."""
    skipped = settings.get("skipped_modules", TASK_HEADS)
    skipped = None if skipped is None else list(skipped)
    if settings["method"] == "int8":
        return Config(
            load_in_8bit=True, llm_int8_threshold=settings.get("int8_threshold", 6.0), llm_int8_skip_modules=skipped
        )
    return Config(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings["method"],
        bnb_4bit_use_double_quant=settings.get("double_quantization", False),
        bnb_4bit_compute_dtype=getattr(torch, settings.get("compute_dtype", "float32")),
        bnb_4bit_quant_storage=settings.get("storage"),
        llm_int8_skip_modules=skipped,
    )


def quantized_by_transformers(folder: Path, head: str, settings: dict[str, Any]) -> Any:
    """The checkpoint as transformers quantizes it: to see which layers those are, and to save it."""
    with without_accelerate():
        return (
            CLASSES[head].from_pretrained(folder, dtype=torch.float32, quantization_config=bnb_config(settings)).eval()
        )


def save_quantized(folder: Path, head: str, settings: dict[str, Any], target: Path) -> Path:
    """A checkpoint that transformers quantized and saved."""
    with without_accelerate():
        quantized_by_transformers(folder, head, settings).save_pretrained(target)
    return target


def quantized_oracle(folder: Path, head: str, settings: dict[str, Any]) -> Any:
    """The checkpoint with the formulas' weights in the layers that transformers quantizes."""
    model = CLASSES[head].from_pretrained(folder, dtype=torch.float32).eval()
    layers = dict(model.named_modules(remove_duplicate=False))
    replaced = {
        id(layers[name]): layers[name] for name, _ in _quantized(quantized_by_transformers(folder, head, settings))
    }
    for layer in replaced.values():
        multiply = _by_formula(layer.weight.detach(), settings)
        layer.forward = partial(_linear, multiply, layer.bias)
    return model


def saved_oracle(folder: Path, head: str) -> Any:
    """A checkpoint that is quantized already, with what the formulas make of the codes in its file."""
    with without_accelerate():
        model = CLASSES[head].from_pretrained(folder, dtype=torch.float32).eval()
    tensors = load_file(folder / "model.safetensors")
    threshold = json.loads((folder / "config.json").read_text())["quantization_config"].get("llm_int8_threshold", 6.0)
    for name, layer in _quantized(model):
        stored = name if f"{name}.weight" in tensors else f"{model.base_model_prefix}.{name}"
        multiply = _from_file(f"{stored}.weight", tensors, threshold)
        layer.forward = partial(_linear, multiply, layer.bias)
    return model


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits of one sequence."""
    with torch.no_grad():
        output = model(torch.tensor([ids]))
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
    logits: torch.Tensor = output.logits[0]
    return logits


def _quantized(model: Any) -> list[tuple[str, Any]]:
    named = model.named_modules(remove_duplicate=False)
    return [(name, module) for name, module in named if type(module).__name__ in ("Linear4bit", "Linear8bitLt")]


def _linear(multiply: Multiply, bias: nn.Parameter | None, x: torch.Tensor) -> torch.Tensor:
    y = multiply(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)
    return y if bias is None else y + bias


def _by_formula(weight: torch.Tensor, settings: dict[str, Any]) -> Multiply:
    if settings["method"] == "int8":
        threshold = settings.get("int8_threshold", 6.0)
        return partial(formulas.int8_product, weight=formulas.int8(weight), threshold=threshold)
    double = settings.get("double_quantization", False)
    return partial(F.linear, weight=formulas.four_bit_weight(weight, settings["method"], double=double))


def _from_file(name: str, tensors: dict[str, torch.Tensor], threshold: float) -> Multiply:
    scales = tensors.get(f"{name}.absmax")
    if scales is None:
        held = formulas.Int8(codes=tensors[name], absmax=tensors[f"{name.removesuffix('weight')}SCB"])
        return partial(formulas.int8_product, weight=held, threshold=threshold)
    [kind] = [kind for kind in formulas.TABLES if f"{name}.quant_state.bitsandbytes__{kind}" in tensors]
    state = json.loads(bytes(tensors[f"{name}.quant_state.bitsandbytes__{kind}"].tolist()))
    if scales.dtype == torch.uint8:
        units = tensors[f"{name}.nested_absmax"].repeat_interleave(state["nested_blocksize"])[: scales.numel()]
        scales = tensors[f"{name}.nested_quant_map"][scales.long()] * units + state["nested_offset"]
    packed, shape = tensors[name].view(torch.uint8), torch.Size(state["shape"])
    return partial(F.linear, weight=formulas.four_bit_floats(packed, scales, kind, shape, state["blocksize"]))
