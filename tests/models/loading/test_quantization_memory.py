"""Peak memory while a checkpoint is loaded quantized: its quantized size, one tensor, and what is said here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.models.quantized import METHODS, save_quantized

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
MIB = 2**20
HIDDEN, INTERMEDIATE, NUM_LAYERS, VOCABULARY = 1024, 4096, 4, 256
CONFIG = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "dtype": "float16",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
LARGEST_TENSOR = HIDDEN * INTERMEDIATE * 2
MARGIN = 8 * MIB
"""The temporaries of quantizing 2**18 weights."""
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": str(128 << 10), "MALLOC_TRIM_THRESHOLD_": "0"}
"""Has the C allocator give freed memory back to the system at once: what it keeps differs by 14 MiB from run to run."""

MEASURE = """
import json, logging, sys
from pathlib import Path
import torch
from models.config.model_config import ModelConfig
from models.loading.footprint import footprint
from models.loading.load import load_model
from models.weights.weights import Checkpoint

def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024

folder, small, method = sys.argv[1:4]
load_model(small, device="cpu", quantization=method)  # whatever the first use imports and sets up
expected = footprint(ModelConfig.from_pretrained(folder), Checkpoint.open(folder), dtype="auto", quantization=method).weights
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
loaded = load_model(folder, device="cpu", quantization=method)
after, peak = status("VmRSS"), status("VmHWM")
print(json.dumps({"expected": expected, "held": after - before, "peak": peak - before}))
"""


def save_random(folder: Path, *, num_layers: int = NUM_LAYERS, hidden: int = HIDDEN, inner: int = INTERMEDIATE) -> Path:
    """A checkpoint in float16, random and written without a network."""
    folder.mkdir(exist_ok=True)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}
    for layer in range(num_layers):
        name = f"model.layers.{layer}"
        shapes |= {f"{name}.self_attn.{which}_proj.weight": (hidden, hidden) for which in "qkvo"}
        shapes |= {f"{name}.self_attn.{which}_norm.weight": (hidden // 16,) for which in "qk"}
        shapes |= {f"{name}.mlp.{which}_proj.weight": (inner, hidden) for which in ("gate", "up")}
        shapes |= {f"{name}.{which}_layernorm.weight": (hidden,) for which in ("input", "post_attention")}
        shapes |= {f"{name}.mlp.down_proj.weight": (hidden, inner)}
    save_file({name: torch.randn(shape).half() for name, shape in shapes.items()}, folder / "model.safetensors")
    sizes = {
        "num_hidden_layers": num_layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "head_dim": hidden // 16,
    }
    (folder / "config.json").write_text(json.dumps(CONFIG | sizes))
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_random(tmp_path_factory.mktemp("large"))
    assert (folder / "model.safetensors").stat().st_size > 120 * MIB
    return folder


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize(
    ("method", "source"),
    [
        ("nf4", "floats"),
        ("int8", "saved"),
        pytest.param("nf4", "saved", marks=pytest.mark.faults),
        pytest.param("int8", "floats", marks=pytest.mark.faults),
    ],
)
def test_the_peak_is_the_quantized_size_and_one_tensor(large: Path, tmp_path: Path, method: str, source: str) -> None:
    folder = large
    if source == "saved":
        folder = save_quantized(large, "causal", METHODS[method], tmp_path / "saved")
    small = save_random(tmp_path / "small", num_layers=1, hidden=64, inner=128)
    command = [sys.executable, "-c", MEASURE, str(folder), str(small), method]
    environment = os.environ | GIVING_BACK
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=240)
    measured = json.loads(found.stdout)
    assert measured["held"] < measured["expected"] + MARGIN
    assert measured["peak"] < measured["expected"] + LARGEST_TENSOR + MARGIN
