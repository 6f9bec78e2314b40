"""Quantized weights on a CUDA device: equal to the CPU, which is held against the published formulas in tests/models.

Not yet run: no CUDA device was at hand when this was written.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models import Engine, SamplingParams, Scorer
from models.config.quantization import QuantizationConfig
from models.layers.quantization.four_bit import FourBitQuantizer
from models.layers.quantization.int8 import Int8Quantizer
from tests.helpers.models.quantized import METHODS, save_quantized

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
CheckpointMaker = Callable[..., Path]
IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46]
SHAPE = (256, 128)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("threshold", [0.0, 2.0, 6.0])
@pytest.mark.parametrize("num_rows", [1, 7, 64])
def test_an_int8_product_is_that_of_the_cpu(dtype: torch.dtype, threshold: float, num_rows: int) -> None:
    weight, x = random(*SHAPE), random(num_rows, SHAPE[1], seed=1).to(dtype)
    x[0, 3] = 9.0
    quantize = Int8Quantizer(threshold=threshold)
    expected = quantize(weight, "w").product()(x)
    found = quantize(weight.cuda(), "w").product()(x.cuda())
    assert found.dtype == dtype
    slack = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}[dtype]
    torch.testing.assert_close(found.float().cpu(), expected, atol=slack * float(expected.abs().max()), rtol=slack)


@pytest.mark.parametrize("compute_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("num_rows", [1, 7, 64])
def test_a_4_bit_product_is_that_of_the_cpu(kind: str, double: bool, compute_dtype: torch.dtype, num_rows: int) -> None:
    weight, x = random(*SHAPE), random(num_rows, SHAPE[1], seed=1)
    on_cpu = FourBitQuantizer(kind=kind, block_size=64, double=double, compute_dtype=torch.float32)  # type: ignore[arg-type]
    on_gpu = FourBitQuantizer(kind=kind, block_size=64, double=double, compute_dtype=compute_dtype)  # type: ignore[arg-type]
    expected = on_cpu(weight, "w").product()(x)
    found = on_gpu(weight.cuda(), "w").product()(x.cuda())
    assert found.dtype == compute_dtype
    slack = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 4e-3}[compute_dtype]
    torch.testing.assert_close(found.float().cpu(), expected, atol=slack * float(expected.abs().max()), rtol=slack)


@pytest.mark.parametrize("rows", [2, 64])
def test_a_rows_int8_output_does_not_depend_on_its_batch_mates(rows: int) -> None:
    product = Int8Quantizer(threshold=2.0)(random(*SHAPE).cuda(), "w").product()
    x = random(rows, SHAPE[1], seed=1).cuda()
    torch.testing.assert_close(product(x)[:1], product(x[:1]), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("method", list(METHODS))
def test_scores_on_a_gpu_are_those_on_the_cpu(
    qwen3_checkpoint: CheckpointMaker, tmp_path: Path, method: str, is_saved: bool
) -> None:
    folder, config = qwen3_checkpoint("causal"), QuantizationConfig(**METHODS[method])
    if is_saved:
        folder = save_quantized(folder, "causal", METHODS[method], tmp_path)
    expected, found = (
        Scorer.from_pretrained(folder, device=device, dtype="float32", quantization=None if is_saved else config).score(
            [IDS]
        )[0]
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_the_engine_generates_in_half_precision(qwen3_checkpoint: CheckpointMaker, method: str, dtype: str) -> None:
    params = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    folder = qwen3_checkpoint("causal")
    with Engine.from_pretrained(folder, device="cuda", dtype=dtype, quantization=method, cache_bytes=2**22) as engine:
        [output] = engine.generate([IDS], params)
    assert len(output.token_ids) == 8
