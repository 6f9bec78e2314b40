"""What tests of several packages share: tiny checkpoints with random weights and a tokenizer, an S3 server on this machine."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.config_types import Head
from tests.models import tiny_tokenizers

CheckpointMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointMaker:
    """A function (head, **config fields) -> folder of a random Qwen3 of 2 layers with a byte-level tokenizer, shared by all tests."""
    made: dict[str, Path] = {}

    def make(head: Head = "causal", **fields: Any) -> Path:
        key = f"{head} {sorted(fields.items())}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("checkpoint")
            _save(made[key], head, fields)
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


def _save(folder: Path, head: Head, fields: dict[str, Any]) -> None:
    import torch
    import transformers

    names = {
        "causal": "Qwen3ForCausalLM",
        "sequence-classification": "Qwen3ForSequenceClassification",
        "token-classification": "Qwen3ForTokenClassification",
        "question-answering": "Qwen3ForQuestionAnswering",
    }
    sizes = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }
    torch.manual_seed(0)
    model = getattr(transformers, names[head])(transformers.Qwen3Config(**{**sizes, **fields}))
    tiny_tokenizers.qwen(folder)
    model.save_pretrained(folder)
