"""From a checkpoint to a loaded model: family by architecture name, device and dtype settled, weights read."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.checkpoint_place import local_folder
from models.config import ModelConfig
from models.config_quantization import QuantizationConfig, choose_quantization
from models.config_types import Head
from models.decoder import BuildOptions
from models.errors import CheckpointError, ConfigError
from models.fitting import check_fits
from models.free_memory import free_bytes
from models.heads import Decoder, Model
from models.helium import HeliumDecoder
from models.layers.attention import AttentionBackend, KvSpec, Layout
from models.layers.cpu_linear import computed_dtype
from models.layers.embedding import VocabHead
from models.layers.loadable import Loadable
from models.layers.mamba_plan import DtClamp, MambaPlan, check_dt_clamp
from models.layers.mamba_plan import plan as plan_mamba
from models.layers.quantization import Quantization, hold_quantized
from models.layers.state import StateSpec
from models.parallel import SINGLE, TensorParallel
from models.phi3 import Phi3Decoder
from models.qwen3 import Qwen3Decoder
from models.shard_sizes import check_size
from models.smollm3 import SmolLM3Decoder
from models.text import Tokenizer
from models.weights import Checkpoint, load_weights
from models.zamba2 import Zamba2Decoder

logger = logging.getLogger(__name__)

FAMILIES: dict[str, Callable[[ModelConfig, BuildOptions], Decoder]] = {
    "smollm3": SmolLM3Decoder,
    "helium": HeliumDecoder,
    "qwen3": Qwen3Decoder,
    "zamba2": Zamba2Decoder,
    "phi3": Phi3Decoder,
}
HEADS: tuple[Head, ...] = (
    "causal",
    "sequence-classification",
    "token-classification",
    "question-answering",
    "embedding",
)
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model ready to run, and where and in what it runs. `max_model_len` bounds every sequence, prompt and output
    together. `weights_bytes` are this shard's. `mamba_dt_clamp` says whose step sizes have a floor in Mamba layers (see `load_model`)."""

    model: Model
    config: ModelConfig
    backend: AttentionBackend
    device: torch.device
    dtype: torch.dtype
    max_model_len: int
    weights_bytes: int
    mamba_dt_clamp: DtClamp = "prefill"

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
        return None if mamba is None else plan_mamba(layout, mamba, self.mamba_dt_clamp, self.device)


def load_model(
    path: str | Path,
    *,
    head: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    quantization: str | QuantizationConfig | None = None,
    max_model_len: int | None = None,
    mamba_dt_clamp: str = "prefill",
    tp: TensorParallel = SINGLE,
) -> LoadedModel:
    """Builds the network that a Hugging Face checkpoint describes, and fills it with this rank's part of the weights. `path` is
    whatever `models.checkpoint_place` finds: a folder, a URL or a hub id.

    `head` "auto" takes the checkpoint's own, `dtype` "auto" the one it names, `device` "auto" a GPU where there is
    one; `max_model_len` None is the checkpoint's `max_position_embeddings`. A CPU that cannot multiply `dtype` holds
    and computes the model in float32. `quantization` (int8, nf4, fp4, or more in detail) quantizes the linear layers as
    they are read; a checkpoint that is quantized already needs none.

    `mamba_dt_clamp` is for networks with Mamba layers: which tokens' step sizes are raised to the checkpoint's
    `time_step_min`. "prefill", as transformers 5.23 does: those of tokens that were given, not those of generated ones;
    "both": all (transformers 4 on a CPU); "none": no token's (its GPU kernels, and vLLM).

    Raises:
        ConfigError: the configuration or an argument cannot be used; the text says what can.
        CheckpointError: the weights do not fit the configuration.
    """
    folder = local_folder(path)
    config = ModelConfig.from_pretrained(folder)
    chosen_quantization = choose_quantization(quantization, config.quantization)
    check_size(config, tp.size)
    clamp = check_dt_clamp(mamba_dt_clamp)
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, config, chosen_device)
    backend = choose_backend(chosen_device, chosen_dtype, slides="sliding_attention" in config.layer_types)
    limit = choose_max_model_len(max_model_len, config)
    checkpoint = Checkpoint.open(folder).resolve_tie(declared=config.tie_word_embeddings)
    chosen_head = choose_head(head, config)
    if chosen_head == "embedding":
        checkpoint = checkpoint.without_heads()
    decoder = FAMILIES[config.model_type](config, BuildOptions(backend=backend, max_model_len=limit, tp=tp))
    model = Model(decoder, chosen_head, is_tied=checkpoint.is_tied)
    checkpoint = checkpoint.unify(decoder.canonical_name)
    hold(model, chosen_quantization, config, checkpoint, dtype=chosen_dtype, device=chosen_device)
    weights_bytes = _num_bytes(model, chosen_dtype)
    sharing = tp.num_here if chosen_device.type == "cpu" else 1
    check_fits(
        weights_bytes,
        tp.least(free_bytes(chosen_device) // sharing),  # before any of them begins to load
        place=f"the {'machine' if chosen_device.type == 'cpu' else 'GPU'} of {'a shard' if tp.size > 1 else 'the engine'}",
        others=_other_ways(config, checkpoint, dtype=dtype, quantization=chosen_quantization, device=device, tp=tp),
    )
    load_weights(model, checkpoint, dtype=chosen_dtype, device=chosen_device)
    if isinstance(model.output, VocabHead):
        model.output.adopt()
    decoder.rotary.materialize(dtype=chosen_dtype, device=chosen_device)
    model.eval().requires_grad_(False)
    return LoadedModel(
        model=model,
        config=config,
        backend=backend,
        device=chosen_device,
        dtype=chosen_dtype,
        max_model_len=limit,
        weights_bytes=weights_bytes,
        mamba_dt_clamp=clamp,
    )


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes that a loaded model takes: its weights, the keys and values of one token, and the states of one sequence."""

    weights: int
    token: int
    sequence: int


def footprint(
    config: ModelConfig,
    checkpoint: Checkpoint,
    *,
    dtype: str,
    quantization: str | QuantizationConfig | None,
    num_shards: int = 1,
    device: str = "auto",
) -> Footprint:
    """What a shard of a checkpoint takes once loaded, without loading it.

    Raises:
        ModelError: an argument cannot be used.
    """
    chosen_device = choose_device(device)
    chosen_dtype = choose_dtype(dtype, config, chosen_device)
    check_size(config, num_shards)
    settled = checkpoint.resolve_tie(declared=config.tie_word_embeddings)
    options = BuildOptions(
        backend=choose_backend(chosen_device, chosen_dtype), max_model_len=1, tp=TensorParallel(size=num_shards)
    )
    decoder = FAMILIES[config.model_type](config, options)
    model = Model(decoder, config.head, is_tied=settled.is_tied)
    chosen = choose_quantization(quantization, config.quantization)
    hold(model, chosen, config, settled.unify(decoder.canonical_name), dtype=chosen_dtype, device=chosen_device)
    specs = decoder.cache_specs
    return Footprint(
        weights=_num_bytes(model, chosen_dtype),
        token=sum(spec.bytes_per_token(chosen_dtype) for spec in specs if isinstance(spec, KvSpec)),
        sequence=sum(spec.bytes_per_sequence(chosen_dtype) for spec in specs if isinstance(spec, StateSpec)),
    )


def _num_bytes(model: Model, dtype: torch.dtype) -> int:
    """Of a network that is built and not yet filled."""
    return sum(layer.num_bytes(dtype) for layer in model.modules() if isinstance(layer, Loadable))


def _other_ways(
    config: ModelConfig,
    checkpoint: Checkpoint,
    *,
    dtype: str,
    quantization: QuantizationConfig | None,
    device: str,
    tp: TensorParallel,
) -> Iterator[tuple[str, int]]:
    """Smaller ways to load a model: over twice, four and eight times the shards, and quantized; with their bytes a shard."""
    ways: list[tuple[str, int, str | QuantizationConfig | None]] = [
        (f"tensor_parallel_size {tp.size * factor}", tp.size * factor, quantization) for factor in (2, 4, 8)
    ]
    if quantization is None:
        ways += [(f"quantization {method}", tp.size, method) for method in ("int8", "nf4")]
    for name, num_shards, method in ways:
        try:
            takes = footprint(
                config, checkpoint, dtype=dtype, quantization=method, num_shards=num_shards, device=device
            )
        except ConfigError:  # the model cannot be split or quantized so
            continue
        yield name, takes.weights


def choose_head(head: str, config: ModelConfig) -> Head:
    """The checkpoint's own head for "auto", else the one named."""
    if head == "auto":
        return config.head
    for known in HEADS:
        if head == known:
            return known
    raise ConfigError(f"head was {head!r}; it must be 'auto' or one of {', '.join(HEADS)}")


def choose_device(device: str) -> torch.device:
    """The device named, or a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"device was {device!r}; it must be 'auto', 'cpu', 'cuda' or 'cuda:0' and so on")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device was {device!r}, but torch sees no GPU here; use 'cpu' or 'auto'")
    return chosen


def choose_dtype(dtype: str, config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype named, or the checkpoint's own; float32 in place of half precision that a CPU cannot multiply (see
    `computed_dtype`)."""
    name = config.dtype if dtype == "auto" else dtype
    if name not in DTYPES:
        raise ConfigError(f"dtype was {dtype!r}; it must be 'auto' or one of {', '.join(DTYPES)}")
    chosen = DTYPES[name]
    if device.type == "cpu" and computed_dtype(chosen) != chosen:
        logger.info("this CPU has no instructions for %s: the model is held and computed in float32", name)
        return computed_dtype(chosen)
    return chosen


def choose_max_model_len(max_model_len: int | None, config: ModelConfig) -> int:
    """The limit asked for, at most what the checkpoint's positions reach; its `max_position_embeddings` by default."""
    if max_model_len is None:
        return config.max_position_embeddings
    longest = config.longest_context
    if not 1 <= max_model_len <= longest:
        raise ConfigError(
            f"max_model_len was {max_model_len}; it must be from 1 to {longest}, which the checkpoint's "
            "max_position_embeddings and rope scaling allow"
        )
    return max_model_len


def choose_backend(device: torch.device, dtype: torch.dtype, *, slides: bool = False) -> AttentionBackend:
    """The attention kernels for a device and a dtype, of a model with sliding windows or without: flash attention on a
    GPU in half precision, which is all it takes, else torch's operators, which run anywhere."""
    if device.type == "cuda" and dtype != torch.float32:
        from models.layers import attention_cuda

        if not slides or attention_cuda.has_windows():
            return attention_cuda.choose()
        logger.warning("torch %s has no flash attention with sliding windows; using plain operators", torch.__version__)
    from models.layers import attention_cpu

    return attention_cpu.BACKEND


def load_tokenizer(path: str | Path) -> Tokenizer | None:
    """The checkpoint's tokenizer, None where it has no tokenizer.json.

    Raises:
        TokenizerError: its files cannot be used.
    """
    return Tokenizer.from_pretrained(path) if (Path(path) / "tokenizer.json").exists() else None


def require_causal(loaded: LoadedModel, path: str | Path) -> None:
    """Raises CheckpointError when the loaded head does not make text."""
    if loaded.head != "causal":
        raise CheckpointError(
            f"{path} has a {loaded.head} head, which makes no text; the Engine needs a causal checkpoint (use Scorer)"
        )
