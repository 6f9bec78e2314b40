"""From a checkpoint to a loaded model: family by architecture name, device and dtype settled, weights read."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from models.checkpoint.place import local_folder
from models.config.agreement import check_agreement
from models.config.model_config import TWO_WAY, ModelConfig
from models.config.quantization import QuantizationConfig, choose_quantization
from models.config.shard_sizes import check_size
from models.config.types import Head
from models.errors import CheckpointError
from models.layers.attention.attention import AttentionBackend, Layout
from models.layers.embedding import VocabHead
from models.layers.mamba.plan import MambaPlan
from models.layers.mamba.plan import plan as plan_mamba
from models.loading.choices import choose_backend, choose_device, choose_dtype, choose_head, choose_max_model_len
from models.loading.fitting import check_fits, check_positions_fit
from models.loading.footprint import smaller_ways
from models.loading.free_memory import free_bytes
from models.networks.decoder import BuildOptions
from models.networks.families import build_decoder, hold, weights_bytes
from models.networks.heads import Model
from models.parallel.tensor_parallel import SINGLE, TensorParallel
from models.text.tokenizer import Tokenizer
from models.weights.weights import Checkpoint, load_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model ready to run, and where and in what it runs. `max_model_len` bounds every sequence, prompt and output
    together. `weights_bytes` are this shard's; `folder` holds the whole checkpoint."""

    folder: Path
    model: Model
    config: ModelConfig
    backend: AttentionBackend
    device: torch.device
    dtype: torch.dtype
    max_model_len: int
    weights_bytes: int

    @property
    def head(self) -> Head:
        return self.model.head

    @property
    def tp(self) -> TensorParallel:
        """Its rank among the shards of the model."""
        return self.model.decoder.options.tp

    @property
    def longest_window(self) -> int | None:
        """The most keys that a query of any layer sees; None: all of them."""
        sizes = [window for window in self.model.decoder.windows if window is not None]
        return max(sizes) if len(sizes) == len(self.model.decoder.windows) else None

    def plan_attention(self, layout: Layout) -> dict[int | None, Any]:
        """What a step's `Batch.attention` takes: the backend's plan for each window of the model."""
        return {window: self.backend.plan(layout, self.device, window) for window in self.model.decoder.windows}

    def plan_mamba(self, layout: Layout) -> MambaPlan | None:
        """What a step's `Batch.mamba` takes; None for a network without Mamba layers."""
        mamba = self.config.mamba
        return None if mamba is None else plan_mamba(layout, mamba, self.device)


def load_model(
    path: str | Path,
    *,
    head: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    quantization: str | QuantizationConfig | None = None,
    max_model_len: int | None = None,
    model_options: Mapping[str, Any] = MappingProxyType({}),
    tp: TensorParallel = SINGLE,
) -> LoadedModel:
    """Builds the network that a Hugging Face checkpoint describes, and fills it with this rank's part of the weights. `path` is
    whatever `models.checkpoint.place` finds: a folder, a URL or a hub id.

    `head` "auto" takes the checkpoint's own, `dtype` "auto" the one it names, `device` "auto" a GPU where there is
    one; `max_model_len` None is the checkpoint's `max_position_embeddings`. A CPU that cannot multiply `dtype` holds
    and computes the model in float32. `quantization` (int8, nf4, fp4, or more in detail) quantizes the linear layers as
    they are read; a checkpoint that is quantized already needs none.

    `model_options` are options of the checkpoint's family alone (the row of it in `models.config.families`).

    Raises:
        ConfigError: the configuration or an argument cannot be used; the text says what can.
        CheckpointError: the weights do not fit the configuration.
    """
    folder = local_folder(path)
    config = ModelConfig.from_pretrained(folder, model_options)
    chosen_quantization = choose_quantization(quantization, config.quantization)
    check_size(config, tp.size)
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, config, chosen_device)
    backend = choose_backend(chosen_device, chosen_dtype, config)
    limit = choose_max_model_len(max_model_len, config)
    checkpoint = Checkpoint.open(folder)
    check_agreement(config, checkpoint.tensors, folder)
    checkpoint = checkpoint.resolve_tie(declared=config.tie_word_embeddings)
    chosen_head = choose_head(head, config)
    if chosen_head == "embedding":
        checkpoint = checkpoint.without_heads()
    decoder = build_decoder(config, BuildOptions(backend=backend, max_model_len=limit, tp=tp))
    model = Model(decoder, chosen_head, is_tied=checkpoint.is_tied)
    checkpoint = checkpoint.unify(decoder.canonical_name)
    hold(model, chosen_quantization, config, checkpoint, dtype=chosen_dtype, device=chosen_device)
    num_bytes = weights_bytes(model, chosen_dtype)
    sharing = tp.num_here if chosen_device.type == "cpu" else 1
    free = tp.least(free_bytes(chosen_device) // sharing)  # before any of them begins to load
    check_positions_fit(decoder.rotary.loading_bytes, free, max_model_len=limit)
    check_fits(
        num_bytes,
        free,
        place=f"the {'machine' if chosen_device.type == 'cpu' else 'GPU'} of {'a shard' if tp.size > 1 else 'the engine'}",
        others=smaller_ways(config, checkpoint, dtype=dtype, quantization=chosen_quantization, device=device, tp=tp),
    )
    load_weights(model, checkpoint, dtype=chosen_dtype, device=chosen_device)
    if isinstance(model.output, VocabHead):
        model.output.adopt()
    decoder.rotary.materialize(dtype=chosen_dtype, device=chosen_device)
    model.eval().requires_grad_(False)
    return LoadedModel(
        folder=folder,
        model=model,
        config=config,
        backend=backend,
        device=chosen_device,
        dtype=chosen_dtype,
        max_model_len=limit,
        weights_bytes=num_bytes,
    )


def load_tokenizer(path: str | Path) -> Tokenizer | None:
    """The checkpoint's tokenizer, None if it has no tokenizer.json.

    Raises:
        TokenizerError: its files cannot be used.
    """
    return Tokenizer.from_pretrained(path) if (Path(path) / "tokenizer.json").exists() else None


def require_causal(loaded: LoadedModel, path: str | Path) -> None:
    """Raises CheckpointError when the loaded head does not make text."""
    if not loaded.config.is_causal:
        raise CheckpointError(f"{path} makes no text: {TWO_WAY}; use Scorer")
    if loaded.head != "causal":
        raise CheckpointError(
            f"{path} has a {loaded.head} head, which makes no text; the Engine needs a causal checkpoint (use Scorer)"
        )
