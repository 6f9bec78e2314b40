"""Time and peak memory of loading a checkpoint: `python -m tests.benchmarks.loading [--dtype auto]`.

Writes checkpoints of about 200 MB (random Qwen3, few tensors) in float32 and bfloat16, as one file and in shards, tied and untied, and
loads each in a process of its own. Prints the bytes of the weights as they are held, what the process's peak rose by over what it was
before loading, and the seconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

KIB = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """What loading one checkpoint took. `held_bytes` counts every parameter once, in the dtype it is held in; `largest_bytes` is the
    largest tensor's; `rise_bytes` is how far the process's peak rose."""

    held_bytes: int
    largest_bytes: int
    rise_bytes: int
    seconds: float


def save_checkpoint(folder: Path, *, dtype: str, is_tied: bool, max_shard_size: str) -> Path:
    """A causal Qwen3 of 50 million parameters in 24 tensors."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=16384 if is_tied else 10240,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=256,
        tie_word_embeddings=is_tied,
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def measure(folder: Path, dtype: str) -> Loading:
    """Loads a checkpoint in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.loading", "--load", str(folder), "--dtype", dtype]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Loading(**json.loads(done.stdout))


def load_here(folder: str, dtype: str) -> Loading:
    """Loads a checkpoint in this process, whose peak must not be behind it yet."""
    import torch

    from models.layers.kernels.products import packed_product
    from models.loading.load import load_model
    from models.weights.weights import Checkpoint

    torch.set_num_threads(1)
    packed_product(torch.ones(64, 64), None)  # what the libraries allocate at their first product is not the weights'
    before = peak_bytes()
    started = time.perf_counter()
    loaded = load_model(folder, dtype=dtype, device="cpu")
    seconds = time.perf_counter() - started
    shapes = [tensor.shape for tensor in Checkpoint.open(folder).tensors.values()]
    sizes = [torch.Size(shape).numel() * loaded.dtype.itemsize for shape in shapes]
    return Loading(held_bytes=sum(sizes), largest_bytes=max(sizes), rise_bytes=peak_bytes() - before, seconds=seconds)


def peak_bytes() -> int:
    """The most memory this process has had at once, mapped files included. `getrusage` would count its parent's in."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * KIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--load")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    if options.load:
        sys.stdout.write(json.dumps(asdict(load_here(options.load, options.dtype))))
        return
    for stored, is_tied, shards in product(("float32", "bfloat16"), (False, True), ("5GB", "60MB")):
        with tempfile.TemporaryDirectory() as name:
            folder = save_checkpoint(Path(name), dtype=stored, is_tied=is_tied, max_shard_size=shards)
            found = measure(folder, options.dtype)
        told = f"{stored:8} {'tied' if is_tied else 'untied':6} {'one file' if shards == '5GB' else 'shards':8}"
        ratio = found.rise_bytes / found.held_bytes
        sys.stdout.write(
            f"{told}: held {found.held_bytes / 1e6:.0f} MB, largest tensor {found.largest_bytes / 1e6:.0f} MB, "
            f"peak rose by {found.rise_bytes / 1e6:.0f} MB ({ratio:.2f}), {found.seconds:.2f} s\n"
        )


if __name__ == "__main__":
    main()
