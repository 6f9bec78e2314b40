"""How the ranks of a replica find each other.

    meeting = Meeting.open("10.0.0.7", size)                # rank 0, on a free port of its machine
    tp = meeting.join(device, check=...)                    # and waits for the others there
    tp = join(meeting.invitation(rank), device=device)      # every other rank
    leave(tp)

An invitation holds the replica's secret, so it travels where a neighbour cannot read: over a pipe, or as an argument of a
call of Ray. Both sides of every connection to rank 0 prove that they know it (`models.parallel.handshake`). Tensors go
over NCCL between GPUs and over gloo between CPUs, which prove nothing
(docs/decisions/0018-shards-prove-that-they-know-a-secret.md); calls go over channels of their own
(`models.parallel.calls`).
"""

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist

from models.errors import EngineError
from models.parallel.calls import CallReceiver, CallSender
from models.parallel.entrance import Entrance, enter
from models.parallel.handshake import Seat
from models.parallel.shared_store import RemoteStore, SharedStore
from models.parallel.tensor_parallel import TensorParallel

JOIN_S = 300.0
STEP_S = 1800.0  # a collective that takes longer has lost a rank; a watchdog is to notice long before

_SIOCGIFADDR = 0x8915
_GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True, kw_only=True, slots=True)
class Invitation:
    """What rank `rank` of `size` needs to know to join rank 0, which listens at `host`:`port`. A
    process that knows `secret` is taken for a rank."""

    rank: int
    size: int
    host: str
    port: int
    secret: bytes = field(repr=False)


class Meeting:
    """Where the ranks meet: at a socket of rank 0's."""

    def __init__(self, host: str, size: int, entrance: Entrance) -> None:
        self._host, self._size, self._entrance = host, size, entrance

    @classmethod
    def open(cls, host: str, size: int) -> Self:
        """Opens a meeting of `size` ranks on a free port of this machine, which the others reach as `host`.

        Raises:
            EngineError: `host` is not an address of this machine.
        """
        try:
            return cls(host, size, Entrance(host))
        except OSError as error:
            raise EngineError(f"the shards cannot meet at {host}: {error}") from error

    def invitation(self, rank: int) -> Invitation:
        """That of another rank."""
        return Invitation(
            rank=rank, size=self._size, host=self._host, port=self._entrance.port, secret=self._entrance.secret
        )

    def join(self, device: torch.device, *, check: Callable[[], None]) -> TensorParallel:
        """Rank 0's place, once all have come. `check` is called while they are waited for, and raises if one never will.

        Raises:
            EngineError: not all ranks came within `JOIN_S`.
        """
        others = range(1, self._size)
        seats = [Seat(purpose, rank) for rank in others for purpose in ("calls", "store")]
        channels = self._entrance.admit(seats, JOIN_S, check=check)
        calls = CallSender([channels[Seat("calls", rank)] for rank in others])
        store = SharedStore([channels[Seat("store", rank)] for rank in others])
        return _join(0, self._size, store, self._host, device, calls)

    def close(self) -> None:
        """Takes in no more ranks; those that have joined stay."""
        self._entrance.close()


def join(invitation: Invitation, *, device: torch.device) -> TensorParallel:
    """The place of a rank other than 0 at the meeting that it is invited to. A process is a rank of one replica at a time.

    Raises:
        EngineError: rank 0 is not there, who answers is not rank 0, or not all ranks came within `JOIN_S`.
    """
    rank, host, port, secret = invitation.rank, invitation.host, invitation.port, invitation.secret
    try:
        calls = enter(host, port, secret, Seat("calls", rank), JOIN_S)
        try:
            store = enter(host, port, secret, Seat("store", rank), JOIN_S)
        except EngineError:
            calls.close()
            raise
    except EngineError as error:
        raise EngineError(f"rank {rank} of {invitation.size} did not find rank 0: {error}") from error
    return _join(rank, invitation.size, RemoteStore(store), calls.own_address, device, CallReceiver(calls))


def leave(tp: TensorParallel) -> None:
    """Ends this process's part in a replica."""
    if tp.calls is not None:
        tp.calls.close()
    if tp.size > 1 and dist.is_initialized():
        dist.destroy_process_group()
    if tp.store is not None:
        tp.store.close()


def _join(
    rank: int,
    size: int,
    shared: SharedStore | RemoteStore,
    host: str,
    device: torch.device,
    calls: CallSender | CallReceiver,
) -> TensorParallel:
    """`host` is this rank's own address, where the others reach it."""
    store = shared.store if isinstance(shared, SharedStore) else shared
    try:
        with _gloo_over(_interface_of(host)):
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=STEP_S),
            )
        store.set(f"machine {rank}", socket.gethostname())
        machines = [store.get(f"machine {each}").decode() for each in range(size)]
    except BaseException as error:
        calls.close()
        shared.close()
        if isinstance(error, RuntimeError | ValueError):
            raise EngineError(f"rank {rank} of {size} did not meet the others: {error}") from error
        raise
    return TensorParallel(
        rank=rank, size=size, num_here=machines.count(machines[rank]), group=dist.group.WORLD, calls=calls, store=shared
    )


@contextlib.contextmanager
def _gloo_over(interface: str | None) -> Iterator[None]:
    """Has gloo connect over an interface, unless the environment already says which. Gloo itself takes the one that the host's
    name leads to, which on many machines is the loopback."""
    if interface is None or _GLOO_INTERFACE in os.environ:
        yield
        return
    os.environ[_GLOO_INTERFACE] = interface
    try:
        yield
    finally:
        del os.environ[_GLOO_INTERFACE]


def _interface_of(address: str) -> str | None:
    """The network interface of this machine that has an IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(found[20:24]) == address:
                return name
    return None
