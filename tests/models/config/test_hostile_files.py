"""Single files of a checkpoint that ask for far more than is there: refused at once, for what they say."""

import json
import os
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models.checkpoint.stored_tensors import MAX_TENSORS, stored_tensors
from models.checkpoint.whole_files import OversizeError, read_whole
from models.config.agreement import check_agreement
from models.config.model_config import ModelConfig
from models.engine.engine import Engine
from models.errors import CheckpointError, ConfigError, TokenizerError
from models.loading.fitting import check_positions_fit
from models.loading.load import load_model
from models.text.panics import LibraryPanicError, panics_as_errors
from models.text.tokenizer import Tokenizer
from tests.helpers.models.odd_checkpoints import copied
from tests.helpers.models.odd_files import safetensors_head

CheckpointMaker = Callable[..., Path]

SOON_S = 20.0
LITTLE_BYTES = 32 << 20


@contextmanager
def soon_and_little() -> Iterator[None]:
    """Python's own memory stays small, where a million layers or labels take gigabytes and minutes."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < LITTLE_BYTES
        assert time.monotonic() - started < SOON_S
    finally:
        tracemalloc.stop()


@pytest.fixture
def classifier(tiny_checkpoint: CheckpointMaker, tmp_path: Path) -> Path:
    return copied(tiny_checkpoint("sequence-classification"), tmp_path / "copy")


def change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers was 1000000; it must be a whole number from 1 to 4,096"),
        ({"id2label": None, "num_labels": 10**12}, "num_labels was 1000000000000; it must be a whole number from 1 to 131,072"),
        ({"id2label": {str(n): "x" for n in range(200_000)}}, "id2label .* an object of at most 131,072 class names"),
        ({"id2label": {"0": {"a": "b"}, "1": "c"}}, "from class numbers to class names"),
        ({"hidden_size": 2**40}, "hidden_size was 1099511627776"),
        ({"intermediate_size": 2**40}, "intermediate_size was"),
        ({"vocab_size": 10**15}, "vocab_size was"),
        ({"num_attention_heads": 0}, "num_attention_heads was 0"),
        ({"num_attention_heads": 10**9, "head_dim": 2}, "num_attention_heads was"),
        ({"head_dim": 10**9}, "head_dim was"),
        ({"max_position_embeddings": 10**18}, "max_position_embeddings was"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 1e308}}, "factor was 1e.308; .* over 0, at most 1e.06"),
        ({"rope_scaling": {"rope_type": "linear", "factor": float("nan")}}, "rope_scaling.factor was nan"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2, "beta_fast": "x"}}, "beta_fast was 'x'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 4}}, "high_freq_factor was 4"),
        ({"rope_parameters": None, "rope_theta": 1.0}, "rope_theta was 1.0; it must be a number over 1"),
        ({"rope_theta": 10**400}, "rope_theta was 1000"),
        ({"rms_norm_eps": 1e308}, "rms_norm_eps was 1e.308"),
        ({"eos_token_id": [1] * 5000}, "at most 1,024 token ids"),
        ({"eos_token_id": 10**30}, "eos_token_id was"),
        ({"model_type": {"a": [["x" * 10**6] * 10]}}, "model_type was {'a': "),
    ],
)  # fmt: skip
def test_a_config_that_asks_for_too_much_is_refused_by_its_number(
    classifier: Path, fields: dict[str, Any], said: str
) -> None:
    change(classifier, **fields)
    with soon_and_little(), pytest.raises(ConfigError, match=said) as caught:
        Engine.from_pretrained(classifier)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_hidden_layers": 4000, "layer_types": None}, r"num_hidden_layers is 4,000, and its files hold 2, the last of them layers\.1"),
        ({"num_hidden_layers": 1, "layer_types": None}, r"num_hidden_layers is 1, and its files hold 2"),
        ({"vocab_size": 2**24}, r"are 16,777,216 and 32, and model\.embed_tokens\.weight is \[512, 32\]"),
        ({"hidden_size": 2**20}, r"are 512 and 1,048,576, and model\.embed_tokens\.weight is \[512, 32\]"),
        ({"id2label": None, "num_labels": 100_000}, r"hidden_size are 100,000 and 32, and score\.weight is \[2, 32\]"),
        ({"intermediate_size": 2**20}, r"gate_proj\.weight is \[48, 32\] and must be \[1048576, 32\]|too little"),
    ],
)  # fmt: skip
def test_a_config_within_the_limits_is_compared_with_the_files_before_a_network_is_built(
    classifier: Path, fields: dict[str, Any], said: str
) -> None:
    change(classifier, **fields)
    with soon_and_little(), pytest.raises((CheckpointError, ConfigError), match=said):
        load_model(classifier, device="cpu")


def test_published_sizes_are_within_the_limits(classifier: Path) -> None:
    """The largest of each kind among public checkpoints: Llama 4 Scout's positions, Llama 3.1 405B's layers, heads and widths, ..."""
    largest = {
        "layer_types": None, "num_hidden_layers": 126, "hidden_size": 16384, "intermediate_size": 53248, "num_attention_heads": 128,
        "num_key_value_heads": 8,
        "head_dim": 256, "vocab_size": 262_208, "max_position_embeddings": 10_485_760, "id2label": {str(n): f"c{n}" for n in range(21_843)},
    }  # fmt: skip
    change(classifier, **largest)
    assert ModelConfig.from_pretrained(classifier).num_labels == 21_843


def test_a_config_is_compared_with_tensors_of_any_prefix(classifier: Path) -> None:
    config = ModelConfig.from_pretrained(classifier)
    check_agreement(config, stored_tensors(classifier), classifier)


def test_tables_of_positions_that_do_not_fit_name_the_key_that_makes_them_smaller(classifier: Path) -> None:
    change(classifier, max_position_embeddings=2**24)
    with pytest.raises(ConfigError, match=r"16,777,216 positions takes 2 GB .* give a smaller max_model_len"):
        check_positions_fit(2 * 10**9, 10**9, max_model_len=2**24)
    assert load_model(classifier, device="cpu", max_model_len=64).max_model_len == 64


def tensor(shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def empty_tensors(count: int) -> bytes:
    return safetensors_head(json.dumps({f"a{number}": tensor([0], 0, 0) for number in range(count)}).encode())


def long_header() -> bytes:
    return safetensors_head(b'{"__metadata__": {"a": "' + b"x" * 60_000_000 + b'"}}')


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (struct.pack("<Q", 2**63) + b"{}", "its header has 9,223,372,036,854,775,808 bytes, of at most 16,777,216"),
        (b"", "corrupt"),
        (b"\x02", "corrupt"),
        (safetensors_head(json.dumps({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}).encode()) + b"0000", "corrupt"),
        (safetensors_head(json.dumps({"a": tensor([1], 2**40, 2**40 + 4)}).encode()) + b"0000", "corrupt"),
        (safetensors_head(json.dumps({"a": tensor([2**40, 2**40], 0, 4)}).encode()) + b"0000", "corrupt"),
        (safetensors_head(json.dumps({"a": tensor([1] * 1000, 0, 4)}).encode()) + b"0000", "a has more than 8 dimensions"),
        (safetensors_head(b'{"a":' + b"[" * 100_000), "corrupt"),
        (partial(empty_tensors, MAX_TENSORS + 1), "more than 65,536 tensors"),
        (long_header, "its header has 60,000,0"),
    ],
)  # fmt: skip
def test_a_hostile_header_is_refused(classifier: Path, content: bytes | Callable[[], bytes], said: str) -> None:
    (classifier / "model.safetensors").write_bytes(content() if callable(content) else content)
    with soon_and_little(), pytest.raises(CheckpointError, match=said):
        load_model(classifier, device="cpu")


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"a": "../outside.safetensors"}, "must be a .safetensors file in the same folder"),
        ({"a": "/etc/passwd"}, "must be a .safetensors file in the same folder"),
        ({"a": "x" * 10_000}, "must be a .safetensors file in the same folder"),
        ({f"a{n}": f"{n}.safetensors" for n in range(100_000)}, "names shards that are not there: .* and 99992 more"),
    ],
)
def test_a_hostile_index_is_refused(classifier: Path, weight_map: dict[str, str], said: str) -> None:
    (classifier / "model.safetensors").rename(classifier.parent / "outside.safetensors")
    (classifier / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=said) as caught:
        stored_tensors(classifier)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"]
)
def test_a_file_of_a_tokenizer_over_its_limit_is_not_read(classifier: Path, name: str) -> None:
    (classifier / name).touch()
    os.truncate(classifier / name, 10**8)
    if name == "special_tokens_map.json":
        (classifier / "tokenizer_config.json").unlink()
    with (
        soon_and_little(),
        pytest.raises(TokenizerError, match=f"{name} .*it has 100,000,000 bytes, and such a file may have"),
    ):
        Tokenizer.from_pretrained(classifier)


def test_a_config_over_its_limit_is_not_read(classifier: Path) -> None:
    os.truncate(classifier / "config.json", 10**9)
    with (
        soon_and_little(),
        pytest.raises(ConfigError, match="it has 1,000,000,000 bytes, and such a file may have 16,777,216"),
    ):
        ModelConfig.from_pretrained(classifier)


def read(folder: Path) -> None:
    Tokenizer.from_pretrained(folder)
    load_model(folder, device="cpu")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(classifier: Path, name: str) -> None:
    (classifier / name).unlink()
    os.mkfifo(classifier / name)
    with pytest.raises((ConfigError, CheckpointError, TokenizerError), match="it is no regular file"):
        read(classifier)


def test_a_file_that_grows_while_it_is_read_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "chat_template.jinja"
    file.write_bytes(b"x" * (2 << 20))
    monkeypatch.setattr("models.checkpoint.whole_files.os.fstat", lambda _: os.stat_result((0o100644, *[0] * 9)))
    with pytest.raises(OversizeError, match="it grew while it was read"):
        read_whole(file)


def test_a_ref_of_the_hubs_cache_leads_out_of_no_folder(classifier: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    (cache / "refs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    (cache / "refs/main").write_text("../../copy")
    with pytest.raises(CheckpointError, match="which is the name of no snapshot"):
        ModelConfig.from_pretrained(cache)


def test_many_templates_are_refused(classifier: Path) -> None:
    templates = [{"name": str(n), "template": "x"} for n in range(100)]
    change_tokenizer(classifier, chat_template=templates)
    with pytest.raises(TokenizerError, match="at most 64 templates"):
        Tokenizer.from_pretrained(classifier)


def change_tokenizer(folder: Path, **fields: Any) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 10**6, b'{"version": "1.0", "model": {"type": "BPE"}}', b"null", b'{"a": 1e999}']
)
def test_a_broken_tokenizer_is_an_error_that_names_its_file(classifier: Path, content: bytes) -> None:
    (classifier / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        Tokenizer.from_pretrained(classifier)


class PanicException(BaseException):
    """As libraries made with pyo3 call theirs."""


def test_a_panic_of_a_library_is_an_error() -> None:
    with pytest.raises(LibraryPanicError, match="index out of bounds"), panics_as_errors():
        raise PanicException("index out of bounds")
    with pytest.raises(KeyboardInterrupt), panics_as_errors():
        raise KeyboardInterrupt


def test_a_tokenizer_that_panics_while_it_is_loaded_is_an_error(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(_: object) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr("models.text.tokenizer.stream_maker", panic)
    with pytest.raises(
        TokenizerError, match=r"tokenizer\.json cannot be read as a tokenizer .*the library failed: called"
    ):
        Tokenizer.from_pretrained(classifier)
