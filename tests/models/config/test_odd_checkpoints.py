"""Whatever stands in the files of a checkpoint, loading it ends with an error of ours or a model, soon and in little memory."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from tests.helpers.matrix import first_quick
from tests.helpers.models import odd_checkpoints as odd
from tests.helpers.models.odd_files import as_json, flipped, spoiled
from tests.helpers.tiny_families import FAMILIES

CheckpointMaker = Callable[..., Path]


def fuzz(num_examples: int) -> settings:
    """No example takes a minute, even on a machine that is busy."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=num_examples,
        deadline=dt.timedelta(seconds=60),
        derandomize=num_examples <= 100,  # those of make test are always the same
        suppress_health_check=checks,
        database=None,
    )


@pytest.fixture
def folder(tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> Path:
    return odd.copied(tiny_checkpoint(), tmp_path / "copy")


def spoil_configs(folder: Path, num_examples: int) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())

    @fuzz(num_examples)
    @given(content=odd.odd_configs(config))
    def check(content: bytes) -> None:
        odd.check_config(folder, content)

    check()


def spoil_weights(folder: Path, num_examples: int) -> None:
    content = (folder / "model.safetensors").read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]

    @fuzz(num_examples)
    @given(head=odd.odd_headers(content))
    def check(head: bytes) -> None:
        odd.check_weights(folder, head, data)

    check()


def spoil_index(folder: Path, num_examples: int) -> None:
    weights = (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    with safe_open(str(weights), framework="numpy") as opened:
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(opened.keys(), weights.name)}

    @fuzz(num_examples)
    @given(content=spoiled(index, ("weight_map",)).map(as_json) | flipped(as_json(index)))
    def check(content: bytes) -> None:
        odd.check_index(folder, content)

    check()


def spoil_tokenizer(folder: Path, num_examples: int) -> None:
    original = (folder / "tokenizer.json").read_bytes()
    config = (folder / "tokenizer_config.json").read_bytes()
    names = {
        "tokenizer.json": spoiled(json.loads(original), odd.TOKENIZER_NAMES).map(as_json) | flipped(original),
        "tokenizer_config.json": spoiled(json.loads(config), odd.TOKENIZER_CONFIG_NAMES).map(as_json) | flipped(config),
        "special_tokens_map.json": spoiled(json.loads(config), odd.TOKENIZER_CONFIG_NAMES).map(as_json),
        "chat_template.jinja": st.binary(max_size=50),
    }

    @fuzz(num_examples)
    @given(file=st.one_of([st.tuples(st.just(name), contents) for name, contents in names.items()]))
    def check(file: tuple[str, bytes]) -> None:
        odd.check_tokenizer(folder, *file)

    check()


@pytest.mark.parametrize("family", first_quick(FAMILIES))
def test_an_odd_config_is_refused_or_loaded(tiny_checkpoint: CheckpointMaker, tmp_path: Path, family: str) -> None:
    head = "causal" if FAMILIES[family].is_hybrid else "sequence-classification"
    spoil_configs(odd.copied(tiny_checkpoint(head, family=family), tmp_path / "copy"), 40)


def test_odd_weights_are_refused_or_loaded(folder: Path) -> None:
    spoil_weights(folder, 60)


def test_an_odd_index_is_refused_or_read(folder: Path) -> None:
    spoil_index(folder, 60)


def test_an_odd_tokenizer_is_refused_or_loaded(folder: Path) -> None:
    spoil_tokenizer(folder, 80)
