"""Products with quantized weights on the CPU next to bitsandbytes' own and to floats, in milliseconds.

python -m tests.benchmarks.quantized_products [--threads 1]
"""

import argparse
import logging
import time
from collections.abc import Callable

import bitsandbytes
import torch
import torch.nn.functional as F
from bitsandbytes import functional

from models.layers.kernels.products import packed_product
from models.layers.quantization.four_bit import FourBitQuantizer
from models.layers.quantization.int8 import Int8Quantizer

SHAPE = (4096, 2560)
ROWS = (1, 8, 32, 256, 1024)
REPEATS = 5


def best_ms(run: Callable[[], object]) -> float:
    """The shortest of a few runs, after one to warm up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def main() -> None:
    """Prints one line a number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 0.02
    packed = packed_product(weight, None)
    nf4 = FourBitQuantizer(kind="nf4", block_size=64, double=False, compute_dtype=torch.float32)(weight, "w").product()
    int8 = Int8Quantizer(threshold=6.0)(weight, "w").product()
    codes, state = functional.quantize_4bit(weight, quant_type="nf4")
    rows, absmax, _ = functional.int8_vectorwise_quant(weight.half())
    int8_state = bitsandbytes.MatmulLtState()  # type: ignore[attr-defined]
    int8_state.CB, int8_state.SCB, int8_state.has_fp16_weights, int8_state.is_training = rows, absmax, False, False
    print(f"{SHAPE[0]} x {SHAPE[1]}   F.linear   packed | nf4   bitsandbytes | int8   bitsandbytes")  # noqa: T201
    for num_rows in ROWS:
        x = torch.randn(num_rows, SHAPE[1])
        ways: list[Callable[[], object]] = [
            lambda x=x: F.linear(x, weight),  # type: ignore[misc]
            lambda x=x: None if packed is None else packed(x),  # type: ignore[misc]
            lambda x=x: nf4(x),  # type: ignore[misc]
            lambda x=x: bitsandbytes.matmul_4bit(x, codes, quant_state=state),  # type: ignore[misc,attr-defined]
            lambda x=x: int8(x),  # type: ignore[misc]
            lambda x=x: bitsandbytes.matmul(x, rows, threshold=6.0, state=int8_state),  # type: ignore[misc,attr-defined]
        ]
        print(f"{num_rows:5} rows", *(f"{best_ms(way):9.1f}" for way in ways))  # noqa: T201


if __name__ == "__main__":
    main()
