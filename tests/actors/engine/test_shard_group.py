"""Shards that are actors of a cluster meet at the node's address, past a neighbour that connects to all they open."""

import os
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util import get_node_ip_address

from actors.engine.load import EngineLoad
from actors.engine.owner import ReplicaOwner, ReplicaShape
from actors.engine.shard_group import group_shards
from actors.work import EngineSettings
from models import Engine, SamplingParams
from tests.helpers.strangers import WORDS, family_of, listening, scanning

PROMPTS = [[5, 6, 7, 8], [9, 10]]
GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
SHAPE = ReplicaShape(size=2, cpus=1, gpus=0, packing="STRICT_PACK")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


class Rank0:
    """Computes with a shard in the bundle beside it."""

    def pid(self) -> int:
        return os.getpid()

    def load(self) -> EngineLoad:
        return EngineLoad(process="one")

    def retire(self) -> None:
        raise AssertionError("nobody asks for fewer")

    def generate(self, path: str) -> list[list[int]]:
        settings = EngineSettings(path=path, dtype="float32", tensor_parallel_size=2)
        lost: list[str] = []
        with Engine.from_pretrained(
            path,
            dtype="float32",
            device="cpu",
            cache_bytes=2**22,
            tensor_parallel_size=2,
            start=group_shards(settings, lost.append),
        ) as engine:
            found = [output.token_ids for output in engine.generate(PROMPTS, GREEDY)]
        assert not lost
        return found


def test_a_group_starts_beside_a_port_scanner_and_listens_on_the_nodes_address_only(causal_path: Path) -> None:
    with Engine.from_pretrained(causal_path, dtype="float32", device="cpu", cache_bytes=2**22) as engine:
        expected = [output.token_ids for output in engine.generate(PROMPTS, GREEDY)]
    with ReplicaOwner("scanned", SHAPE, Rank0, (), timeout_s=60) as owner:
        owner.start(1)
        actor: Any = ray.get_actor(f"{owner.prefix}0")
        pid = ray.get(actor.pid.remote())
        of_ray = listening([pid])
        with scanning(lambda: family_of(pid), without=of_ray) as scanner:
            assert ray.get(actor.generate.remote(str(causal_path))) == expected
    assert {name for _, name in scanner.met} == set(WORDS)
    node: str = get_node_ip_address()  # type: ignore[no-untyped-call]
    assert {address for address, _ in scanner.seen} == {node}
