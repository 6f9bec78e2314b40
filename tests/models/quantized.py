"""The oracle of quantization: transformers with bitsandbytes, on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BitsAndBytesConfig,
)
from transformers.quantizers import quantizer_bnb_4bit, quantizer_bnb_8bit

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


def quantized_oracle(folder: Path, head: str, settings: dict[str, Any]) -> Any:
    """The checkpoint as transformers quantizes it."""
    with without_accelerate():
        return (
            CLASSES[head].from_pretrained(folder, dtype=torch.float32, quantization_config=bnb_config(settings)).eval()
        )


def saved_oracle(folder: Path, head: str) -> Any:
    """A checkpoint that is quantized already, as transformers loads it."""
    with without_accelerate():
        return CLASSES[head].from_pretrained(folder, dtype=torch.float32).eval()


def save_quantized(folder: Path, head: str, settings: dict[str, Any], target: Path) -> Path:
    """A checkpoint that transformers quantized and saved."""
    with without_accelerate():
        quantized_oracle(folder, head, settings).save_pretrained(target)
    return target


def logits_of(model: Any, ids: list[int], *, row_by_row: bool = False) -> torch.Tensor:
    """Logits of one sequence; `row_by_row` multiplies one token at a time, so that none sees another's outliers."""
    hooks = [_alone(module) for module in model.modules() if row_by_row and type(module).__name__ == "Linear8bitLt"]
    with torch.no_grad():
        output = model(torch.tensor([ids]))
    for module, forward in hooks:
        module.forward = forward
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
    logits: torch.Tensor = output.logits[0]
    return logits


def _alone(module: nn.Module) -> tuple[Any, Any]:
    forward = module.forward
    rows: Any = module
    rows.forward = lambda x: torch.cat([forward(row) for row in x.reshape(-1, x.shape[-1]).split(1)]).view(
        *x.shape[:-1], -1
    )
    return rows, forward
