"""Every family over the published formulas of quantization: while it is loaded, and from a checkpoint that was saved so."""

import logging
import statistics
from pathlib import Path

import pytest
import torch

from models import Engine, SamplingParams, Scorer
from models.config import families as config_families
from models.config.option import declared
from models.config.quantization import QuantizationConfig
from models.layers.linear import Linear
from models.loading.load import load_model
from tests.helpers.matrix import first_of_each, first_quick
from tests.helpers.models.quantized import CLASSES, METHODS, logits_of, quantized_oracle, save_quantized, saved_oracle
from tests.helpers.tiny_families import DENSE, FAMILIES
from tests.models.conftest import CheckpointMaker
from tests.models.loading.test_quantization import IDS, assert_same_layer, assert_same_logits

CASES = [
    (family, head)
    for family in FAMILIES
    for head in ("causal", "sequence-classification", "token-classification")
    if head not in FAMILIES[family].missing
]


@pytest.fixture(autouse=True)
def quiet_bitsandbytes() -> None:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("method", first_quick(["int8 with many outliers", "int8", "nf4", "fp4 twice"]))
def test_every_layer_is_that_of_the_formula(family_checkpoint: CheckpointMaker, family: str, method: str) -> None:
    """Of weights in which no scale of a block lies midway between two codes: there the last bit of a mean decides."""
    folder = family_checkpoint(family, seed=FAMILIES[family].formula_seed)
    oracle = quantized_oracle(folder, "causal", METHODS[method])
    exact = CLASSES["causal"].from_pretrained(folder, dtype=torch.float32)
    model = load_model(folder, device="cpu", quantization=QuantizationConfig(**METHODS[method])).model
    layers = [module for module in model.modules() if isinstance(module, Linear) and module.held is not None]
    assert len(layers) >= 2 * 4
    for layer in layers:
        assert_same_layer(layer, oracle.base_model, exact.base_model)


@pytest.mark.parametrize(("family", "head"), first_of_each(CASES, kind=lambda case: case[0]))
def test_logits_in_4_bits_are_those_of_the_formula(family_checkpoint: CheckpointMaker, family: str, head: str) -> None:
    folder = family_checkpoint(family, head, num_labels=5, pad_token_id=0)
    expected = logits_of(quantized_oracle(folder, head, METHODS["nf4"]), IDS)
    found = Scorer.from_pretrained(folder, device="cpu", quantization="nf4").score([IDS])[0]
    assert_same_logits(found, expected, "nf4")


@pytest.mark.parametrize(("family", "head"), first_of_each(CASES, kind=lambda case: case[0]))
def test_logits_in_8_bits_are_those_of_the_formula(family_checkpoint: CheckpointMaker, family: str, head: str) -> None:
    """But for inputs that are rounded to a neighbour, which noise of 1e-7 decides: of most texts a small part of what
    quantizing itself changes."""
    folder = family_checkpoint(family, head, num_labels=5, pad_token_id=0)
    quantized, floats = (
        quantized_oracle(folder, head, METHODS["int8"]),
        CLASSES[head].from_pretrained(folder, dtype=torch.float32),
    )
    texts = [IDS[number:] + IDS[:number] for number in range(5)]
    scores = Scorer.from_pretrained(folder, device="cpu", quantization="int8").score(texts)
    shares = []
    for ids, found in zip(texts, scores, strict=True):
        expected, exact = logits_of(quantized, ids), logits_of(floats, ids)
        shares.append(float((found - expected).norm() / (expected - exact).norm()))
    assert statistics.median(shares) < 0.15, shares


@pytest.mark.parametrize("family", DENSE)
@pytest.mark.parametrize("method", ["int8", "nf4 twice"])
def test_saved_quantized_it_gives_the_logits_it_gives_in_transformers(
    family_checkpoint: CheckpointMaker, tmp_path: Path, family: str, method: str
) -> None:
    folder = save_quantized(family_checkpoint(family), "causal", METHODS[method], tmp_path)
    expected = logits_of(saved_oracle(folder, "causal"), IDS)
    found = Scorer.from_pretrained(folder, device="cpu").score([IDS])[0]
    assert_same_logits(found, expected, METHODS[method]["method"])


def test_a_hybrid_that_was_saved_quantized_is_what_is_quantized_at_load(
    family_checkpoint: CheckpointMaker, tmp_path: Path
) -> None:
    """transformers 5.23 can save such a file, but not load it."""
    plain = family_checkpoint("zamba2")
    folder = save_quantized(plain, "causal", METHODS["nf4"], tmp_path)
    saved, loaded = (
        Scorer.from_pretrained(path, device="cpu", quantization=method).score([IDS])[0]
        for path, method in ((folder, None), (plain, "nf4"))
    )
    assert_same_logits(saved, loaded, "nf4")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_it_generates(family_checkpoint: CheckpointMaker, family: str) -> None:
    folder, params = family_checkpoint(family), SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    options = {name: each.words[0] for name, each in declared(config_families.FAMILIES[family].options).items()}
    scorer = Scorer.from_pretrained(folder, device="cpu", quantization="nf4", model_options=options)
    engine = Engine.from_pretrained(
        folder, device="cpu", quantization="nf4", model_options=options, cache_bytes=2**22, max_num_seqs=4
    )
    with engine:
        [output] = engine.generate([IDS], params)
    logits = scorer.score([IDS + output.token_ids])[0]
    for place, token in enumerate(output.token_ids, start=len(IDS) - 1):
        assert logits[place].max() - logits[place, token] < 1e-4
