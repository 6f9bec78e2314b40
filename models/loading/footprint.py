"""What a checkpoint would take once loaded, without loading it; and ways to load it in less."""

from collections.abc import Iterator
from dataclasses import dataclass

from models.config.agreement import check_agreement
from models.config.model_config import ModelConfig
from models.config.quantization import QuantizationConfig, choose_quantization
from models.config.shard_sizes import check_size
from models.errors import ConfigError
from models.layers.attention.attention import KvSpec
from models.layers.state import StateSpec
from models.loading.choices import choose_backend, choose_device, choose_dtype
from models.networks.decoder import BuildOptions
from models.networks.families import build_decoder, hold, weights_bytes
from models.networks.heads import Model
from models.parallel.tensor_parallel import TensorParallel
from models.weights.weights import Checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Bytes that a loaded model takes: its weights, the keys and values of one token and its
    hidden state, and the states of one sequence."""

    weights: int
    token: int
    hidden: int
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
    check_agreement(config, checkpoint.tensors, checkpoint.folder)
    settled = checkpoint.resolve_tie(declared=config.tie_word_embeddings)
    options = BuildOptions(
        backend=choose_backend(chosen_device, chosen_dtype, config),
        max_model_len=1,
        tp=TensorParallel(size=num_shards),
    )
    decoder = build_decoder(config, options)
    model = Model(decoder, config.head, is_tied=settled.is_tied)
    chosen = choose_quantization(quantization, config.quantization)
    hold(model, chosen, config, settled.unify(decoder.canonical_name), dtype=chosen_dtype, device=chosen_device)
    specs = decoder.cache_specs
    return Footprint(
        weights=weights_bytes(model, chosen_dtype),
        token=sum(spec.bytes_per_token(chosen_dtype) for spec in specs if isinstance(spec, KvSpec)),
        hidden=config.hidden_size * chosen_dtype.itemsize,
        sequence=sum(spec.bytes_per_sequence(chosen_dtype) for spec in specs if isinstance(spec, StateSpec)),
    )


def smaller_ways(
    config: ModelConfig,
    checkpoint: Checkpoint,
    *,
    dtype: str,
    quantization: QuantizationConfig | None,
    device: str,
    tp: TensorParallel,
) -> Iterator[tuple[str, int]]:
    """Smaller ways to load a model: over twice, four and eight times the shards, and quantized;
    with their bytes per shard."""
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
