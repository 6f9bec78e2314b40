"""The families of networks, and one of them built for a checkpoint, without its weights."""

from collections.abc import Callable
from importlib import import_module

import torch

from models.config.families import FAMILIES
from models.config.model_config import ModelConfig
from models.config.quantization import QuantizationConfig
from models.layers.quantization.quantized_layers import Quantization, hold_quantized
from models.networks.decoder import BuildOptions
from models.networks.heads import Decoder, Model
from models.weights.loadable import Loadable
from models.weights.weights import Checkpoint


def build_decoder(config: ModelConfig, options: BuildOptions) -> Decoder:
    """The network of a configuration, without storage: class `<class prefix>Decoder` of the module with its family's name."""
    module = import_module(f"models.networks.{config.model_type}")
    build: Callable[[ModelConfig, BuildOptions], Decoder] = getattr(
        module, f"{FAMILIES[config.model_type].class_prefix}Decoder"
    )
    return build(config, options)


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
