"""A rank joins rank 0 and nobody else; the rest of the meeting is in `tests/models/engine/test_shard_processes.py`."""

import pickle
import socket
from pathlib import Path

import pytest
import torch

import models.parallel.rendezvous
from models.errors import EngineError
from models.parallel.rendezvous import Invitation, Meeting, join
from tests.helpers.models.pairs import Running
from tests.helpers.strangers import Touching

HOST, CPU = "127.0.0.1", torch.device("cpu")


def invitation_to(port: int) -> Invitation:
    return Invitation(rank=1, size=2, host=HOST, port=port, secret=b"s" * 32)


@pytest.mark.parametrize("before", [b"", bytes(64)], ids=["at once", "after what looks like an answer"])
def test_a_follower_opens_no_pickle_of_who_listens_in_rank_0s_place(tmp_path: Path, before: bytes) -> None:
    content = pickle.dumps(Touching(tmp_path / "touched"))
    with socket.create_server((HOST, 0)) as server:
        joining = Running(lambda: join(invitation_to(server.getsockname()[1]), device=CPU))
        stranger, _ = server.accept()
        with stranger:
            stranger.sendall(before + len(content).to_bytes(8, "little") + content)
            with pytest.raises(EngineError, match=r"rank 1 of 2 did not find rank 0: who answers at .* is not rank 0"):
                joining.result()
    assert list(tmp_path.iterdir()) == []


def test_a_follower_without_rank_0_gives_up() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(EngineError, match="rank 1 of 2 did not find rank 0: rank 0 does not answer"):
        join(invitation_to(port), device=CPU)


def test_a_follower_that_nobody_answers_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.parallel.rendezvous, "JOIN_S", 0.2)
    with socket.create_server((HOST, 0)) as server, pytest.raises(EngineError, match="does not answer"):
        join(invitation_to(server.getsockname()[1]), device=CPU)


def test_rank_0_cannot_be_met_at_an_address_of_another_machine() -> None:
    with pytest.raises(EngineError, match=r"the shards cannot meet at 192\.0\.2\.1"):
        Meeting.open("192.0.2.1", 2)


def test_a_meeting_that_is_closed_lets_nobody_in() -> None:
    meeting = Meeting.open(HOST, 2)
    joining = Running(lambda: meeting.join(CPU, check=lambda: None))
    meeting.close()
    with pytest.raises(EngineError, match="closed while it waited"):
        joining.result()
    with pytest.raises(EngineError, match="does not answer"):
        join(meeting.invitation(1), device=CPU)
