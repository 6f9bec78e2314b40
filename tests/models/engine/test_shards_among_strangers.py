"""A group of shards that starts while neighbours look in: it computes what one rank does, and runs nothing of theirs."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models import Engine
from models.engine.shard_processes import LocalShards, ShardWork
from models.parallel.rendezvous import Invitation
from tests.helpers.models.takeover import take_over
from tests.helpers.models.tiny_engine import GREEDY, SHARP, prompts, tokens
from tests.helpers.models.warm_shards import FORKS
from tests.helpers.strangers import WORDS, family_of, listening, scanning
from tests.models.conftest import CheckpointMaker

PATIENCE_S = 60.0


class WatchedShards(LocalShards):
    """Calls `look` when its processes have started, and before they can join."""

    look: Callable[["WatchedShards"], None]

    def __init__(self, work: ShardWork, size: int) -> None:
        super().__init__(work, size)
        type(self).look(self)

    @property
    def invitation(self) -> Invitation:
        return self._meeting.invitation(1)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]


def watched(look: Callable[[WatchedShards], None]) -> type[WatchedShards]:
    return type("Watched", (WatchedShards,), {"look": staticmethod(look)})


def generated(folder: Path, look: Callable[[WatchedShards], None]) -> list[list[int]]:
    with Engine.from_pretrained(
        folder, cache_bytes=2**22, device="cpu", tensor_parallel_size=2, start=watched(look)
    ) as engine:
        return tokens(engine.generate(prompts(), GREEDY))


@pytest.fixture(scope="module")
def folder(family_checkpoint: CheckpointMaker) -> Path:
    return family_checkpoint("qwen3", **SHARP)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[list[int]]:
    with Engine.from_pretrained(folder, cache_bytes=2**22, device="cpu") as engine:
        return tokens(engine.generate(prompts(), GREEDY))


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_group_starts_beside_a_port_scanner_and_listens_on_the_loopback_only(
    folder: Path, expected: list[list[int]]
) -> None:
    def wait_for_scanner(shards: WatchedShards) -> None:
        wait_for(lambda: all(scanner.met[shards.invitation.port, name] for name in WORDS))

    before = listening(family_of(os.getpid()))
    with scanning(lambda: family_of(os.getpid()), without=before) as scanner:
        assert generated(folder, wait_for_scanner) == expected
    assert {address for address, _ in scanner.seen} == {"127.0.0.1"}


@pytest.mark.slow
def test_the_takeover_of_a_follower_is_refused(folder: Path, expected: list[list[int]], tmp_path: Path) -> None:
    touched, tried = tmp_path / "touched", tmp_path / "tried"
    tried.mkdir()
    is_ready, is_over = FORKS.Event(), FORKS.Event()
    neighbour = FORKS.Process(target=take_over, args=(os.getpid(), touched, tried, is_ready, is_over), daemon=True)
    neighbour.start()
    assert is_ready.wait(PATIENCE_S)

    def wait_for_neighbour(shards: WatchedShards) -> None:
        wait_for((tried / str(shards.invitation.port)).exists)

    found = generated(folder, wait_for_neighbour)
    is_over.set()
    neighbour.join(PATIENCE_S)
    assert found == expected
    assert not touched.exists()


def test_the_secret_is_in_no_command_line_no_environment_and_no_text(folder: Path, expected: list[list[int]]) -> None:
    def look(shards: WatchedShards) -> None:
        secret = shards.invitation.secret
        assert len(secret) == 32
        assert "secret" not in repr(shards.invitation)
        for pid in (os.getpid(), *shards.pids):
            for name in ("cmdline", "environ"):
                text = Path(f"/proc/{pid}/{name}").read_bytes()
                assert secret not in text
                assert secret.hex().encode() not in text.lower()

    assert generated(folder, look) == expected


@pytest.mark.slow
def test_every_group_has_a_secret_of_its_own(folder: Path, expected: list[list[int]]) -> None:
    secrets: list[bytes] = []
    for _ in range(2):
        assert generated(folder, lambda shards: secrets.append(shards.invitation.secret)) == expected
    assert secrets[0] != secrets[1]
