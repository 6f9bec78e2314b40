"""The families of networks, and one of them built for a checkpoint, without its weights."""

from collections.abc import Callable

import torch

from models.config.model_config import ModelConfig
from models.config.quantization import QuantizationConfig
from models.layers.quantization.quantized_layers import Quantization, hold_quantized
from models.networks.decoder import BuildOptions
from models.networks.heads import Decoder, Model
from models.networks.helium import HeliumDecoder
from models.networks.llama import LlamaDecoder
from models.networks.mistral import MistralDecoder
from models.networks.phi3 import Phi3Decoder
from models.networks.qwen2 import Qwen2Decoder
from models.networks.qwen3 import Qwen3Decoder
from models.networks.smollm3 import SmolLM3Decoder
from models.networks.zamba2 import Zamba2Decoder
from models.weights.loadable import Loadable
from models.weights.weights import Checkpoint

FAMILIES: dict[str, Callable[[ModelConfig, BuildOptions], Decoder]] = {
    "smollm3": SmolLM3Decoder,
    "helium": HeliumDecoder,
    "qwen3": Qwen3Decoder,
    "zamba2": Zamba2Decoder,
    "phi3": Phi3Decoder,
    "llama": LlamaDecoder,
    "mistral": MistralDecoder,
    "qwen2": Qwen2Decoder,
}


def hold(
    model: Model,
    quantization: QuantizationConfig | None,
    config: ModelConfig,
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Prepares a network for weights that are quantized, or will be; None: nothing to do."""
    if quantization is not None:
        is_saved = config.quantization is not None
        hold_quantized(
            model, Quantization.choose(quantization, checkpoint, is_saved=is_saved, dtype=dtype, device=device)
        )


def weights_bytes(model: Model, dtype: torch.dtype) -> int:
    """What a network that is built and not yet filled will hold."""
    return sum(layer.num_bytes(dtype) for layer in model.modules() if isinstance(layer, Loadable))
