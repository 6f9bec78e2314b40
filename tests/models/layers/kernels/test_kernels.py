"""A library that lies on this machine changes no answer: plain torch computes in its place, and one line says so."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from models import Scorer
from models.config.quantization import QuantizationConfig
from models.layers.kernels import attention_kernels, plain, products, quantized_codes
from models.layers.kernels.compiled import native_kernels
from models.layers.native.library import NativeLibrary, PackedWeight
from models.layers.quantization.four_bit import FourBitQuantizer
from models.layers.quantization.int8 import Int8Quantizer
from tests.helpers.compilers import needs_compiler
from tests.helpers.models import formulas
from tests.helpers.models.quantized import logits_of, quantized_oracle
from tests.models.layers.attention.test_cuda import packed, varlen

CheckpointMaker = Callable[..., Path]
CPU = torch.device("cpu")
IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46]
BNB = quantized_codes._bitsandbytes()
HALF = torch.float16


def wrong_for_odd_widths(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, but for one number of any result whose width is no multiple of 32, or whose rows are odd."""

    def lie(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        tensor = result[0] if isinstance(result, tuple) else result
        if tensor.shape[-1] % 32 or tensor.shape[0] % 2:
            tensor.view(-1)[-1] += tensor.max() + 1
        return result

    return lie


DECISIONS: dict[str, tuple[Any, str, Callable[[], Any]]] = {
    "oneDNN's packed product in float32": (
        torch.ops.mkldnn,
        "_linear_pointwise",
        lambda: products.packed_product(torch.randn(64, 64), None),
    ),
    "bitsandbytes' floats of nf4 codes in float32": (
        BNB.dequantize_4bit,
        "default",
        lambda: quantized_codes.four_bit_floats("nf4", torch.float32, "cpu"),
    ),
    "bitsandbytes' floats of fp4 codes in bfloat16": (
        BNB.dequantize_4bit,
        "default",
        lambda: quantized_codes.four_bit_floats("fp4", torch.bfloat16, "cpu"),
    ),
    "bitsandbytes' nf4 codes in float16": (
        BNB.quantize_4bit,
        "default",
        lambda: quantized_codes.four_bit_codes("nf4", HALF, "cpu"),
    ),
    "bitsandbytes' codes of scales in float32": (
        BNB.quantize_blockwise,
        "default",
        lambda: quantized_codes.scale_codes("cpu"),
    ),
    "bitsandbytes' floats of scales in float32": (
        BNB.dequantize_blockwise,
        "default",
        lambda: quantized_codes.scale_floats("cpu"),
    ),
    "bitsandbytes' int8 codes in float16": (
        BNB.int8_vectorwise_quant,
        "default",
        lambda: quantized_codes.int8_codes("cpu"),
    ),
    "bitsandbytes' int8 product in float32": (
        BNB.int8_scaled_mm,
        "default",
        lambda: quantized_codes.int8_product("cpu"),
    ),
    "torch's fused attention in float32": (
        F,
        "scaled_dot_product_attention",
        lambda: attention_kernels.fused_attention(torch.float32, "cpu"),
    ),
}


OURS = [module.__name__ for module in (attention_kernels, products, quantized_codes)]


def is_the_librarys(found: Any) -> bool:
    """Whether a decision hands out something that is not one of plain torch's functions."""
    return found is not None and getattr(found, "func", found).__module__ in OURS


@pytest.mark.parametrize("name", list(DECISIONS))
def test_a_library_that_is_wrong_for_odd_shapes_is_not_used_and_one_line_says_so(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_compiler: None
) -> None:
    place, attribute, decide = DECISIONS[name]
    monkeypatch.setattr(place, attribute, wrong_for_odd_widths(getattr(place, attribute)))
    assert not is_the_librarys(decide())
    assert not is_the_librarys(decide())
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith(name)]
    assert len(lines) == 1
    assert lines[0].endswith("of the largest number on this machine: plain torch computes in its place")


@pytest.mark.parametrize("name", list(DECISIONS))
def test_the_libraries_are_used_where_they_are_right(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, no_compiler: None
) -> None:
    """With the formulas in the libraries' place, so that it holds on every machine."""
    place, attribute, decide = DECISIONS[name]
    right = RIGHT.get(place)
    if right is not None:
        monkeypatch.setattr(place, attribute, right)
    assert is_the_librarys(decide())
    assert not caplog.records


@needs_compiler
@pytest.mark.parametrize("kernel", ["attention", "norm", "gated"])
def test_compiled_kernels_are_used_all_or_none(
    kernel: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fresh_kernels: None
) -> None:
    assert native_kernels(torch.float32) is not None
    native_kernels.cache_clear()
    monkeypatch.setattr(NativeLibrary, kernel, wrong_for_odd_widths(getattr(NativeLibrary, kernel)))
    assert native_kernels(torch.float32) is None
    assert native_kernels(torch.float32) is None
    assert caplog.text.count("the compiled") == 1


def right_floats(codes: Any, scales: Any, size: int, kind: Any, shape: Any, dtype: torch.dtype) -> torch.Tensor:
    return formulas.four_bit_floats(codes, scales, kind, torch.Size(shape), size).to(dtype)


RIGHT: dict[Any, Callable[..., Any]] = {
    BNB.dequantize_4bit: right_floats,
    BNB.int8_scaled_mm: lambda x, w, a, b, *, bias, dtype: plain.int8_product(x, w, a, b, dtype),
}


@pytest.mark.parametrize(
    ("place", "attribute", "name"),
    [(F, "linear", "torch's product"), (torch, "bmm", "torch's bmm"), (torch, "matmul", "torch's matmul")],
)
def test_bfloat16_is_computed_in_float32_where_torchs_products_of_it_are_wrong(
    place: Any,
    attribute: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fresh_kernels: None,
) -> None:
    right = getattr(place, attribute)
    wrong = wrong_for_odd_widths(right)

    @functools.wraps(right)
    def product(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        return (wrong if x.dtype == torch.bfloat16 else right)(x, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_bf16": True})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(place, attribute, product)
    assert products.computed_dtype(torch.bfloat16) == torch.float32
    assert products.computed_dtype(torch.bfloat16) == torch.float32
    assert caplog.text.count(f"{name} in bfloat16 is off by") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_of_a_gpu_are_compared_with_windows_pages_and_fewer_key_heads(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture, fresh_kernels: None
) -> None:
    assert attention_kernels.is_right_paged(varlen, dtype, CPU)
    assert attention_kernels.is_right_gathered(packed, dtype, CPU)
    assert not caplog.records

    def deaf_to_windows(*arguments: Any, **options: Any) -> torch.Tensor:
        return varlen(*arguments, **options | {"window_size": (-1, 0)})

    def of_the_first_page(*arguments: Any, block_table: torch.Tensor, **options: Any) -> torch.Tensor:
        return varlen(*arguments, **options, block_table=block_table[:, :1].expand_as(block_table).contiguous())

    def without_shared_heads(q: torch.Tensor, k: torch.Tensor, *rest: Any) -> torch.Tensor:
        if q.shape[1] != k.shape[1]:
            raise RuntimeError("heads differ")
        return packed(q, k, *rest)

    assert not attention_kernels.is_right_paged(deaf_to_windows, dtype, CPU)
    assert not attention_kernels.is_right_paged(of_the_first_page, dtype, CPU)
    assert not attention_kernels.is_right_gathered(without_shared_heads, dtype, CPU)
    assert [record.getMessage().partition(" in ")[0] for record in caplog.records] == [
        "flash-attn's attention",
        "torch's variable-length attention",
    ]


def test_flash_attention_that_cannot_be_imported_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, fresh_kernels: None
) -> None:
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    assert attention_kernels.paged_attention(torch.bfloat16, "cpu") is None
    assert "flash-attn is installed, but cannot be used: undefined symbol" in caplog.text


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(70, 64), (33, 160), (5, 48)])
def test_a_gpus_product_of_4_bits_is_told_what_it_takes(
    kind: plain.FourBitKind, double: bool, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes' own product, over floats that are the formula's."""
    monkeypatch.setattr(BNB.dequantize_4bit, "default", right_floats)
    quantize = FourBitQuantizer(kind=kind, block_size=64, double=double, compute_dtype=torch.float32)
    weight = quantize(torch.randn(shape, generator=torch.Generator().manual_seed(0)), "w")
    x = torch.randn(3, shape[1], generator=torch.Generator().manual_seed(1))
    multiply = quantized_codes.four_bit_product.__wrapped__(kind, torch.float32, "cpu")
    assert multiply is not None
    expected = formulas.four_bit_floats(weight.packed, weight.plain_scales(), kind, torch.Size(shape), 64)
    torch.testing.assert_close(weight._multiply_fused(x, fused=multiply, state=weight._state()), F.linear(x, expected))


@pytest.mark.parametrize("threshold", [0.0, 1.0, 6.0])
def test_a_gpus_product_of_8_bits_keeps_outliers_beside_the_codes(threshold: float) -> None:
    weight = torch.randn(37, 49, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 49, generator=torch.Generator().manual_seed(1))
    x[0, 5], x[2, 7] = 9.0, -7.0
    found = Int8Quantizer(threshold=threshold)(weight, "w")._multiply_fused(x, fused=plain.int8_product)
    expected = formulas.int8_product(x, formulas.int8(weight), threshold)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [None, "int8", "nf4", "fp4"])
def test_a_model_answers_right_where_every_library_lies(
    qwen3_checkpoint: CheckpointMaker,
    method: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fresh_kernels: None,
) -> None:
    folder = qwen3_checkpoint("causal")
    if method is None:
        oracle = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        oracle = quantized_oracle(folder, "causal", {"method": method})
    expected = logits_of(oracle, IDS)
    for place, attribute, _ in DECISIONS.values():
        monkeypatch.setattr(place, attribute, wrong_for_odd_widths(getattr(place, attribute)))
    monkeypatch.setattr(PackedWeight, "__call__", wrong_for_odd_widths(PackedWeight.__call__))
    quantization = None if method is None else QuantizationConfig(method=method)
    for _ in range(2):
        found = Scorer.from_pretrained(folder, device="cpu", quantization=quantization).score([IDS])[0]
        torch.testing.assert_close(found, expected, atol=5e-3 if method == "int8" else 1e-4, rtol=0)
    lines = [record.getMessage() for record in caplog.records if record.name == "models.layers.kernels.agreement"]
    assert len(lines) == len(set(lines)) >= 2
