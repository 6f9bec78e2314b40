"""A model that does not fit says so before it is loaded, by how much, and what would help."""

import pytest

from models.errors import ConfigError
from models.loading import load as registry
from models.loading.fitting import check_fits
from models.loading.load import load_model
from tests.models.conftest import CheckpointMaker

GB = 10**9


def test_what_fits_is_said_by_silence() -> None:
    check_fits(3 * GB, 3 * GB, place="the GPU", others=iter(()))


def test_what_does_not_fit_says_by_how_much_and_what_would() -> None:
    others = [("tensor_parallel_size 2", 4 * GB), ("tensor_parallel_size 4", 2 * GB), ("quantization nf4", 3 * GB)]
    with pytest.raises(ConfigError) as raised:
        check_fits(8 * GB, 3 * GB, place="the GPU of the engine", others=others)
    assert str(raised.value) == (
        "the weights take 8 GB a shard, and the GPU of the engine has 3 GB for it: 5 GB too little; with tensor_parallel_size 4 "
        "(2 GB a shard) or quantization nf4 (3 GB a shard) it would fit"
    )


def test_where_nothing_helps_it_says_so() -> None:
    with pytest.raises(ConfigError, match="no number of shards and no quantization would help"):
        check_fits(8 * GB, 1, place="the GPU", others=[("tensor_parallel_size 2", 4 * GB)])


def test_a_checkpoint_is_checked_before_it_is_read(
    family_checkpoint: CheckpointMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = family_checkpoint("qwen3")
    takes = load_model(folder, device="cpu").weights_bytes

    def read(*_: object, **__: object) -> None:
        raise InterruptedError("the weights are read")

    monkeypatch.setattr(registry, "load_weights", read)
    monkeypatch.setattr(registry, "free_bytes", lambda _: takes - 1)
    with pytest.raises(
        ConfigError, match=r"too little; with tensor_parallel_size 2 .* or quantization nf4 .* it would fit"
    ):
        load_model(folder, device="cpu")
    monkeypatch.setattr(registry, "free_bytes", lambda _: takes)
    with pytest.raises(InterruptedError):
        load_model(folder, device="cpu")
