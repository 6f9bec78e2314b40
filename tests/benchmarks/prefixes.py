"""What prompts that begin alike cost, with and without the prefix cache, on small models of random
weights in float32, one thread.

    python -m tests.benchmarks.prefixes            a job of one instruction, cache on and off in turns, for Qwen3 and Zamba2
    python -m tests.benchmarks.prefixes equal      a job of which 40% of the prompts are others', with dedup, to one of distinct prompts
    python -m tests.benchmarks.prefixes unshared   seconds of a job whose prompts have nothing in common, for comparing versions

The job has 64 rows: an instruction of 512 tokens, 64 tokens of a row's own, 16 tokens written
greedily. Seconds are those that this process computed, whoever else uses the machine.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Zamba2Config, Zamba2ForCausalLM

from actors.engine.core import EngineCore
from actors.work import Asked, EngineSettings, EngineWork
from models import Engine, SamplingParams

NUM_ROWS, INSTRUCTION, OWN, WRITTEN = 64, 512, 64, 16
NUM_ROUNDS = 3
SIZES: dict[str, Any] = {
    "vocab_size": 8000,
    "hidden_size": 256,
    "intermediate_size": 768,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
}
GREEDY = SamplingParams(max_tokens=WRITTEN, temperature=0.0, ignore_eos=True)
Prompts = list[list[int]]


def save_qwen3(folder: Path) -> None:
    """8 layers of attention."""
    config = Qwen3Config(**SIZES, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2, head_dim=64)
    Qwen3ForCausalLM(config).save_pretrained(folder)


def save_zamba2(folder: Path) -> None:
    """8 Mamba-2 layers, every fourth with the shared block."""
    types = ["hybrid" if number % 4 == 3 else "linear_attention" for number in range(8)]
    config = Zamba2Config(
        **SIZES,
        num_hidden_layers=8,
        layers_block_type=types,
        num_attention_heads=4,
        n_mamba_heads=8,
        mamba_d_state=64,
        adapter_rank=32,
    )
    Zamba2ForCausalLM(config).save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {"Qwen3": save_qwen3, "Zamba2": save_zamba2}


def rows(*, seed: int, num_common: int) -> Prompts:
    """A job's prompts, which have so many tokens in common and 576 in all."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(10, SIZES["vocab_size"], (count,), generator=generator).tolist()

    common = tokens(num_common)
    return [common + tokens(INSTRUCTION + OWN - num_common) for _ in range(NUM_ROWS)]


def engines(*, folder: Path) -> Iterator[tuple[str, Path]]:
    """Each model by its name, saved."""
    for name, save in MODELS.items():
        torch.manual_seed(0)
        save(folder / name)
        yield name, folder / name


def open_engine(path: Path) -> Engine:
    """An engine that is warm."""
    engine = Engine.from_pretrained(path, dtype="float32", device="cpu", max_num_seqs=64, cache_bytes=1 << 30)
    engine.generate(rows(seed=99, num_common=0)[:2], GREEDY)
    return engine


def timed(engine: Engine, prompts: Prompts) -> tuple[float, int]:
    """Seconds, and prompt tokens that were computed."""
    started = time.process_time()
    outputs = engine.generate(prompts, GREEDY)
    seconds = time.process_time() - started
    return seconds, sum(map(len, prompts)) - sum(output.num_cached_tokens for output in outputs)


def compare(name: str, path: Path) -> None:
    """One job a round, computed with the cache and without, the order alternating."""
    with open_engine(path) as engine:
        pool = engine._scheduler.pool
        found: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
        for number in range(NUM_ROUNDS):
            for is_on in (True, False) if number % 2 else (False, True):
                pool._shares_prefixes = is_on
                found[is_on].append(timed(engine, rows(seed=2 * number + is_on, num_common=INSTRUCTION)))
    ratios = sorted(off[0] / on[0] for on, off in zip(found[True], found[False], strict=True))
    computed, whole = found[True][0][1], NUM_ROWS * (INSTRUCTION + OWN)
    say(
        f"{name}: {NUM_ROWS / min(found[True])[0]:.1f} rows/s with the prefix cache, {NUM_ROWS / min(found[False])[0]:.1f} without: "
        f"{ratios[len(ratios) // 2]:.2f} times (each round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}); "
        f"{computed:,} of {whole:,} prompt tokens computed, {1 - computed / whole:.1%} fewer"
    )


def equal(name: str, path: Path) -> None:
    """Jobs with and without equal prompts in turns, by an engine's core that computes equal ones
    once."""
    core = EngineCore(
        EngineSettings(
            path=str(path),
            dtype="float32",
            asked=Asked(sampling=GREEDY),
            dedup=True,
            max_num_seqs=64,
            cache_bytes=1 << 30,
        )
    )
    num_equal = round(0.4 * NUM_ROWS)
    found: dict[bool, list[float]] = {True: [], False: []}
    try:
        for number in range(NUM_ROUNDS):
            for has_equal in (True, False) if number % 2 else (False, True):
                prompts = rows(seed=2 * number + has_equal, num_common=0)
                if has_equal:
                    prompts[-num_equal:] = prompts[:num_equal]
                ids = [np.array(prompt, np.int32) for prompt in prompts]
                started = time.process_time()
                asyncio.run(core.compute(EngineWork.of("job", ids, [0] * len(ids))))
                found[has_equal].append(time.process_time() - started)
    finally:
        core.close()
    ratios = sorted(some / none for some, none in zip(found[True], found[False], strict=True))
    say(f"{name}: {num_equal} of {NUM_ROWS} prompts equal to others: {ratios[len(ratios) // 2]:.1%} of the time")


def unshared(name: str, path: Path) -> None:
    """Seconds of jobs that have nothing in common, within and between them."""
    with open_engine(path) as engine:
        seconds = [timed(engine, rows(seed=number, num_common=0))[0] for number in range(NUM_ROUNDS)]
    say(f"{name}: {', '.join(f'{each:.2f}' for each in seconds)} s")


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Prints one line a model."""
    torch.set_num_threads(1)
    measure = {"equal": equal, "unshared": unshared}[sys.argv[1]] if sys.argv[1:] else compare
    with tempfile.TemporaryDirectory() as folder:
        for name, path in engines(folder=Path(folder)):
            measure(name, path)


if __name__ == "__main__":
    main()
