"""What tests of several packages share: tiny checkpoints with random weights and a tokenizer, an S3 server on this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.config_types import Head
from tests.tiny_checkpoints import save_with_tokenizer

CheckpointMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointMaker:
    """A function (head, family, **config fields) -> folder of a random checkpoint with a byte-level tokenizer, shared by all tests."""
    made: dict[str, Path] = {}

    def make(head: Head = "causal", *, family: str = "qwen3", **fields: Any) -> Path:
        key = f"{head} {family} {sorted(fields.items())}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("checkpoint")
            save_with_tokenizer(made[key], family, head, fields)
        return made[key]

    return make


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, Any]]:
    """Storage options of an S3 server on this machine, with an empty bucket called `bucket`."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "us-east-1"},
    }
    s3fs.S3FileSystem(**options).call_s3("create_bucket", Bucket="bucket")
    yield options
    server.stop()
