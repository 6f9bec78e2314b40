"""Quantized models against transformers' networks over the published formulas: layer by layer, whole, and from checkpoints
that were saved quantized."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import Engine, SamplingParams, Scorer
from models.config import quantization as config_quantization
from models.config.quantization import QuantizationConfig
from models.errors import CheckpointError, ConfigError
from models.layers.linear import Linear
from models.layers.quantization.held_weight import HeldPart, HeldWeight
from models.loading.load import load_model
from tests.helpers.matrix import first_of_each
from tests.helpers.models.quantized import (
    CLASSES,
    METHODS,
    logits_of,
    quantized_oracle,
    save_quantized,
    saved_oracle,
)

CheckpointMaker = Callable[..., Path]
HEADS = list(CLASSES)
# Widths of 32, 48 and 64: rows that end inside a block of 64, and rows that are a block.
ODD: dict[str, Any] = {}
EVEN: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
SHAPES = {"odd": ODD, "even": EVEN, "biases": {"attention_bias": True}}
CASES = [*((head, "odd") for head in HEADS), ("causal", "even"), ("causal", "biases")]
IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46]
# Rounding inputs to whole numbers is not continuous: noise of 1e-7 in a layer's input can turn one into its neighbour,
# which moves an output by a 127th of a weight times an input. Whole models agree to a few such turns.
LOGIT_SLACK = {"int8": 5e-3, "nf4": 1e-4, "fp4": 1e-4}


@pytest.fixture(autouse=True)
def quiet_bitsandbytes() -> None:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line a layer about the casts to float16


def assert_same_logits(found: torch.Tensor, expected: torch.Tensor, method: str) -> None:
    torch.testing.assert_close(found, expected, atol=LOGIT_SLACK[method], rtol=0)


def inputs(width: int, seed: int = 0) -> torch.Tensor:
    """Rows [6, width] as an int8 product meets them: some with outliers, one of zeros."""
    x = torch.randn(6, width, generator=torch.Generator().manual_seed(seed))
    x[1, 3] = 9.0
    x[2, 0], x[2, 2] = -20.0, 6.5
    x[3] = 0.0
    return x


@pytest.mark.parametrize(("head", "shape"), first_of_each(CASES, kind=lambda case: case[1]))
@pytest.mark.parametrize("method", list(METHODS))
def test_outputs_and_errors_are_those_of_the_formulas_layer_by_layer_and_whole(
    qwen3_checkpoint: CheckpointMaker, method: str, head: str, shape: str
) -> None:
    folder = qwen3_checkpoint(head, num_labels=5, pad_token_id=0, **SHAPES[shape])
    oracle = quantized_oracle(folder, head, METHODS[method])
    exact = CLASSES[head].from_pretrained(folder, dtype=torch.float32)
    loaded = load_model(folder, device="cpu", quantization=QuantizationConfig(**METHODS[method]))
    layers = [module for module in loaded.model.modules() if isinstance(module, Linear) and module.held is not None]
    assert len(layers) == 2 * 4
    for layer in layers:
        assert_same_layer(layer, oracle.base_model, exact.base_model)
    expected = logits_of(oracle, IDS)
    assert_same_logits(Scorer(loaded).score([IDS])[0], expected, METHODS[method]["method"])


@torch.no_grad()
def assert_same_layer(layer: Linear, oracle: Any, exact: Any) -> None:
    """A layer that is held quantized: its parts are those of the oracle's layers, and so are their errors."""
    x = inputs(layer.in_features)
    found = layer(x).split([part.rows[1] - part.rows[0] for part in layer.parts], dim=1)
    for part, ours in zip(layer.parts, found, strict=True):
        theirs, truth = (model.get_submodule(part.name)(x)[:, slice(*part.rows)] for model in (oracle, exact))
        torch.testing.assert_close(ours, theirs, atol=1e-6 * float(theirs.abs().max()), rtol=1e-6)
        assert (ours - truth).norm() <= (theirs - truth).norm() * 1.001
        assert (ours - truth).norm() < 0.2 * truth.norm()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", ["int8", "nf4", "fp4 twice"])
def test_a_checkpoint_saved_quantized_gives_the_logits_it_gives_in_transformers(
    qwen3_checkpoint: CheckpointMaker, tmp_path: Path, method: str, head: str
) -> None:
    settings = METHODS[method] | {"skipped_modules": None}  # transformers then quantizes task heads that have a bias
    folder = save_quantized(qwen3_checkpoint(head, num_labels=5, pad_token_id=0), head, settings, tmp_path)
    expected = logits_of(saved_oracle(folder, head), IDS)
    for quantization in (None, METHODS[method]["method"]):
        scorer = Scorer.from_pretrained(folder, device="cpu", quantization=quantization)
        assert_same_logits(scorer.score([IDS])[0], expected, METHODS[method]["method"])


@pytest.mark.parametrize("storage", ["bfloat16", "float32"])
def test_codes_may_be_stored_in_the_disguise_of_another_type(
    qwen3_checkpoint: CheckpointMaker, tmp_path: Path, storage: str
) -> None:
    settings = {"method": "nf4", "storage": storage}
    folder = save_quantized(qwen3_checkpoint("causal"), "causal", settings, tmp_path)
    plain = Scorer.from_pretrained(qwen3_checkpoint("causal"), device="cpu", quantization="nf4")
    assert torch.equal(Scorer.from_pretrained(folder, device="cpu").score([IDS])[0], plain.score([IDS])[0])


@pytest.mark.parametrize("method", ["int8", "nf4", "nf4 twice"])
def test_what_is_saved_quantized_is_what_is_quantized_at_load(
    qwen3_checkpoint: CheckpointMaker, tmp_path: Path, method: str
) -> None:
    plain = qwen3_checkpoint("causal", **EVEN)
    folder = save_quantized(plain, "causal", METHODS[method], tmp_path)
    loaded = Scorer.from_pretrained(plain, device="cpu", quantization=QuantizationConfig(**METHODS[method]))
    assert torch.equal(Scorer.from_pretrained(folder, device="cpu").score([IDS])[0], loaded.score([IDS])[0])


@pytest.mark.parametrize("method", ["int8", "nf4", "fp4 twice"])
def test_the_engine_writes_what_a_full_forward_would(qwen3_checkpoint: CheckpointMaker, method: str) -> None:
    folder, settings = qwen3_checkpoint("causal"), QuantizationConfig(**METHODS[method])
    scorer = Scorer.from_pretrained(folder, device="cpu", quantization=settings)
    params = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    with Engine.from_pretrained(folder, device="cpu", quantization=settings, cache_bytes=2**22) as engine:
        [output] = engine.generate([IDS], params)
    written = IDS + output.token_ids
    logits = scorer.score([written])[0]
    for place, token in enumerate(output.token_ids, start=len(IDS) - 1):
        assert logits[place].max() - logits[place, token] < 1e-4


@pytest.mark.parametrize("method", ["int8", "int8 with many outliers", "nf4"])
def test_a_rows_output_does_not_depend_on_its_batch_mates(qwen3_checkpoint: CheckpointMaker, method: str) -> None:
    folder = qwen3_checkpoint("causal")
    model = load_model(folder, device="cpu", quantization=QuantizationConfig(**METHODS[method])).model
    for layer in [module for module in model.modules() if isinstance(module, HeldWeight)]:
        part = layer.parts[0]
        assert isinstance(part, HeldPart)
        x = inputs(part.published_shape[1])
        together, alone = layer(x), torch.cat([layer(row) for row in x.split(1)])
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_half_precision_files_are_quantized_as_they_are(
    qwen3_checkpoint: CheckpointMaker, stored: torch.dtype, method: str
) -> None:
    folder = qwen3_checkpoint("causal", dtype=stored)
    oracle = quantized_oracle(folder, "causal", METHODS[method])
    found = Scorer.from_pretrained(folder, device="cpu", dtype="float32", quantization=method).score([IDS])[0]
    assert_same_logits(found, logits_of(oracle, IDS), method)


SKIPS: list[tuple[tuple[str, ...], int]] = [
    ((), 2 * 4 + 1),  # the head too
    (("lm_head",), 2 * 4),
    (("lm_head", "model.layers.1"), 4),
    (("lm_head", "self_attn"), 2 * 4),  # transformers compares a name's front or back, and there is nothing to skip
    (("lm_head", "mlp.down_proj"), 2 * 3),
    (("lm_head", "k_proj"), 2 * 4),  # one of three that are fused
    (("lm_head", "model.layers.0.self_attn", "up_proj"), 2 + 4),
]


@pytest.mark.parametrize(("skipped", "num_held"), SKIPS)
@pytest.mark.parametrize("method", ["int8", "fp4"])
def test_skipped_modules_are_those_that_transformers_skips(
    qwen3_checkpoint: CheckpointMaker, tmp_path: Path, method: str, skipped: tuple[str, ...], num_held: int
) -> None:
    folder = qwen3_checkpoint("causal")
    settings: dict[str, Any] = {"method": method, "skipped_modules": skipped}
    loaded = load_model(folder, device="cpu", quantization=QuantizationConfig(**settings))
    held = [module for module in loaded.model.modules() if isinstance(module, HeldWeight)]
    oracle = quantized_oracle(folder, "causal", settings)
    assert len(held) == num_held
    expected = logits_of(oracle, IDS)
    assert_same_logits(Scorer(loaded).score([IDS])[0], expected, method)
    save_quantized(folder, "causal", settings, tmp_path)
    saved = Scorer.from_pretrained(tmp_path, device="cpu")
    assert_same_logits(saved.score([IDS])[0], expected, method)


def test_a_tied_head_stays_the_embedding(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal", tie_word_embeddings=True)
    settings: dict[str, Any] = {"method": "nf4", "skipped_modules": ("lm_head", "embed_tokens")}
    found = Scorer.from_pretrained(folder, device="cpu", quantization="nf4").score([IDS])[0]
    expected = logits_of(quantized_oracle(folder, "causal", settings), IDS)
    assert_same_logits(found, expected, "nf4")


def test_the_compute_dtype_is_honoured_where_the_cpu_can(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal")
    exact = Scorer.from_pretrained(folder, device="cpu", quantization="nf4").score([IDS])[0]
    half = QuantizationConfig(method="nf4", compute_dtype="bfloat16")
    found = Scorer.from_pretrained(folder, device="cpu", quantization=half).score([IDS])[0]
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)


def test_blocks_may_have_another_size(qwen3_checkpoint: CheckpointMaker) -> None:
    folder = qwen3_checkpoint("causal", **EVEN)
    exact = Scorer.from_pretrained(folder, device="cpu").score([IDS])[0]

    def error(block_size: int) -> float:
        config = QuantizationConfig(method="nf4", block_size=block_size)
        found = Scorer.from_pretrained(folder, device="cpu", quantization=config).score([IDS])[0]
        return float((found - exact).norm())

    assert error(32) < error(512)


# ---- what is refused


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("int3", "quantization.method was 'int3'; it must be one of int8, nf4, fp4"),
        ({"method": "int8", "double_quantization": True}, "double_quantization has no meaning for method int8"),
        ({"method": "int8", "compute_dtype": "bfloat16"}, "compute_dtype has no meaning for method int8"),
        ({"method": "nf4", "int8_threshold": 5.0}, "int8_threshold has no meaning for method nf4"),
        ({"method": "nf4", "block_size": 63}, "block_size was 63; it must be one of null, 32, 64"),
        ({"method": "nf4", "double_quantization": 1}, "double_quantization was 1; it must be one of"),
        ({"method": "int8", "int8_threshold": -1.0}, "int8_threshold was -1.0; it must be a finite number, 0 or more"),
        ({"method": "nf4", "skipped_modules": ["layers.*"]}, "holds 'layers.*'; it must hold names of modules"),
        ({"method": "nf4", "skipped_modules": "lm_head"}, "skipped_modules was 'lm_head'; it must be a list"),
        ({"method": "nf4", "blocksize": 64}, "quantization has no blocksize; its keys are method"),
        ({"block_size": 64}, "or have a method"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(asked: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        QuantizationConfig.of(asked)
    assert said in str(caught.value)


@pytest.fixture(scope="module")
def saved_nf4(qwen3_checkpoint: CheckpointMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_quantized(
        qwen3_checkpoint("causal"), "causal", METHODS["nf4 twice"], tmp_path_factory.mktemp("saved-nf4")
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("fp4", "method was 'fp4', but the checkpoint is quantized already, with 'nf4'"),
        ("int8", "method was 'int8', but the checkpoint is quantized already, with 'nf4'"),
        (QuantizationConfig(method="nf4", double_quantization=False), "double_quantization was False, but"),
        (QuantizationConfig(method="nf4", block_size=64), "block_size was given, but the checkpoint is quantized"),
        (QuantizationConfig(method="nf4", skipped_modules=("lm_head",)), "skipped_modules was given, but"),
    ],
)
def test_another_quantization_than_the_checkpoints_is_refused(saved_nf4: Path, asked: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_model(saved_nf4, quantization=asked)


def test_without_bitsandbytes_quantized_weights_are_refused_and_others_are_not(
    qwen3_checkpoint: CheckpointMaker, saved_nf4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_quantization, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="nf4 weights need the package bitsandbytes, which is not installed"):
        load_model(qwen3_checkpoint("causal"), quantization="nf4")
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        load_model(saved_nf4)
    load_model(qwen3_checkpoint("causal"))


DOWN = "model.layers.1.mlp.down_proj.weight"


def changed(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a checkpoint with other tensors."""
    copy = shutil.copytree(folder, target / "changed")
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def with_state(tensors: dict[str, torch.Tensor], **fields: Any) -> None:
    name = f"{DOWN}.quant_state.bitsandbytes__nf4"
    state = json.loads(bytes(tensors[name].tolist())) | fields
    tensors[name] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)


CHANGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "no scales": (lambda t: t.pop(f"{DOWN}.absmax"), r"1 missing: layers\.1\.mlp\.down_proj\.weight\.absmax"),
    "no state": (
        lambda t: t.pop(f"{DOWN}.quant_state.bitsandbytes__nf4"),
        r"1 missing: layers\.1\.mlp\.down_proj\.weight\.quant_state\.bitsandbytes__nf4",
    ),
    "no codes": (lambda t: t.pop(DOWN), r"1 missing: layers\.1\.mlp\.down_proj\.weight\."),
    "another tensor": (
        lambda t: t.update({f"{DOWN}.zeros": torch.zeros(1)}),
        r"1 unexpected: model\.layers\.1\.mlp\.down_proj\.weight\.zeros",
    ),
    "too few codes": (
        lambda t: t.update({DOWN: t[DOWN][:-1].clone()}),
        r"layers\.1\.mlp\.down_proj\.weight is \[767, 1\] and must be \[768, 1\]",
    ),
    "codes as scales": (
        lambda t: t.update({f"{DOWN}.absmax": t[f"{DOWN}.absmax"].float()}),
        r"1 of the wrong type: layers\.1\.mlp\.down_proj\.weight\.absmax is F32 and must be U8",
    ),
    "another table": (
        lambda t: t.update({f"{DOWN}.quant_map": t[f"{DOWN}.quant_map"] * 2}),
        r"quant_map is not bitsandbytes' table of nf4 codes",
    ),
    "another shape": (lambda t: with_state(t, shape=[48, 32]), r"must be for nf4 weights of shape \[32, 48\]"),
    "another method": (lambda t: with_state(t, quant_type="fp4"), "must be for nf4 weights"),
    "a block size of its own": (lambda t: with_state(t, blocksize=48), "in blocks of 32, 64"),
    "no JSON": (
        lambda t: t.update({f"{DOWN}.quant_state.bitsandbytes__nf4": torch.zeros(5, dtype=torch.uint8)}),
        "cannot be understood",
    ),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_saved_4_bit_checkpoint_that_does_not_fit_is_refused_by_name(
    saved_nf4: Path, tmp_path: Path, change: str
) -> None:
    make, said = CHANGES[change]
    with pytest.raises(CheckpointError, match=said):
        load_model(changed(saved_nf4, tmp_path, make))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("SCB", None, r"1 missing: layers\.1\.mlp\.down_proj\.SCB"),
        (
            "weight",
            torch.zeros(32, 48),
            r"1 of the wrong type: layers\.1\.mlp\.down_proj\.weight is F32 and must be I8",
        ),
        ("weight", torch.zeros(32, 47, dtype=torch.int8), r"is \[32, 47\] and must be \[32, 48\]"),
        ("weight_format", torch.tensor(2, dtype=torch.uint8), r"down_proj\.weight_format is 2; only 0 \(by rows\)"),
    ],
)
def test_a_saved_int8_checkpoint_that_does_not_fit_is_refused_by_name(
    qwen3_checkpoint: CheckpointMaker, tmp_path: Path, name: str, change: torch.Tensor | None, said: str
) -> None:
    folder = save_quantized(qwen3_checkpoint("causal"), "causal", METHODS["int8"], tmp_path / "saved")
    key = f"model.layers.1.mlp.down_proj.{name}"

    def make(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[key]
        if change is not None:
            tensors[key] = change

    with pytest.raises(CheckpointError, match=said):
        load_model(changed(folder, tmp_path, make))


def test_int8_without_a_format_is_by_rows(qwen3_checkpoint: CheckpointMaker, tmp_path: Path) -> None:
    folder = save_quantized(qwen3_checkpoint("causal"), "causal", METHODS["int8"], tmp_path / "saved")

    def drop(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("weight_format")]:
            del tensors[name]

    scores = Scorer.from_pretrained(changed(folder, tmp_path, drop), device="cpu").score([IDS])[0]
    assert torch.equal(scores, Scorer.from_pretrained(folder, device="cpu").score([IDS])[0])


@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_a_weight_that_is_not_finite_is_named(qwen3_checkpoint: CheckpointMaker, tmp_path: Path, method: str) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[DOWN][3, 5] = float("inf")

    with pytest.raises(
        CheckpointError, match=r"layers\.1\.mlp\.down_proj\.weight holds numbers that are NaN, infinite"
    ):
        load_model(changed(qwen3_checkpoint("causal"), tmp_path, spoil), quantization=method)
