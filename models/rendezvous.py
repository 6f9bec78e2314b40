"""How the ranks of a replica find each other.

    meeting = Meeting.open("10.0.0.7", size)                # rank 0, on a free port of its machine
    tp = meeting.join(device, check=...)                    # and waits for the others there
    tp = join(rank, size, "10.0.0.7:41233", device=device)  # every other rank
    leave(tp)

Tensors go over NCCL between GPUs and over gloo between CPUs; calls go over sockets of their own (`models.calls`).
"""

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from models.calls import CallReceiver, CallSender
from models.errors import EngineError
from models.parallel import TensorParallel

JOIN_S = 300.0
STEP_S = 1800.0  # a collective that takes longer has lost a rank; a watchdog is to notice long before
CHECK_S = 0.05

_SIOCGIFADDR = 0x8915
_GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


class Meeting:
    """Where the ranks meet: a key-value store in rank 0's process."""

    def __init__(self, host: str, size: int, store: TCPStore) -> None:
        self._host, self._size, self._store = host, size, store
        self.address = f"{host}:{store.port}"

    @classmethod
    def open(cls, host: str, size: int) -> Self:
        """Opens a meeting of `size` ranks on a free port of this machine, which the others reach as `host`.

        Raises:
            EngineError: `host` is no address of this machine.
        """
        try:
            store = TCPStore(host, 0, size, is_master=True, timeout=timedelta(seconds=JOIN_S), wait_for_workers=False)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"the shards cannot meet at {host}: {error}") from error
        return cls(host, size, store)

    def join(self, device: torch.device, *, check: Callable[[], None]) -> TensorParallel:
        """Rank 0's place, once all have come. `check` is called while they are waited for, and raises if one never will.

        Raises:
            EngineError: not all ranks came within `JOIN_S`.
        """
        self._wait_for_others(check)
        sender = CallSender(self._host)
        try:
            self._store.set("calls", f"{sender.port}:{sender.secret.hex()}")
            sender.accept(self._size - 1, JOIN_S)
            return _join(0, self._size, self._store, self._host, device, sender)
        except BaseException:
            sender.close()
            raise

    def _wait_for_others(self, check: Callable[[], None]) -> None:
        end = time.monotonic() + JOIN_S
        while missing := [name for name in map(_arrival, range(1, self._size)) if not self._store.check([name])]:
            check()
            if time.monotonic() > end:
                raise EngineError(f"{', '.join(missing)} did not come within {JOIN_S:.0f} s")
            time.sleep(CHECK_S)


def join(rank: int, size: int, address: str, *, device: torch.device) -> TensorParallel:
    """The place of a rank other than 0 at the meeting that rank 0 opened at `address`. A process is a rank of one replica at
    a time.

    Raises:
        EngineError: rank 0 is not there, or not all ranks came within `JOIN_S`.
    """
    host, _, port = address.rpartition(":")
    try:
        store = TCPStore(host, int(port), size, is_master=False, timeout=timedelta(seconds=JOIN_S))
        store.set(_arrival(rank), "")
        calls_port, _, secret = store.get("calls").decode().partition(":")
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"rank {rank} of {size} did not find rank 0 at {address}: {error}") from error
    receiver = CallReceiver(host, int(calls_port), bytes.fromhex(secret), JOIN_S)
    return _join(rank, size, store, _own_address(host, int(port)), device, receiver)


def leave(tp: TensorParallel) -> None:
    """Ends this process's part in a replica."""
    if tp.calls is not None:
        tp.calls.close()
    if tp.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def _join(
    rank: int,
    size: int,
    store: TCPStore,
    host: str,
    device: torch.device,
    calls: CallSender | CallReceiver,
) -> TensorParallel:
    """`host` is this rank's own address, where the others reach it."""
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
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"rank {rank} of {size} did not meet the others: {error}") from error
    return TensorParallel(
        rank=rank, size=size, num_here=machines.count(machines[rank]), group=dist.group.WORLD, calls=calls
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


def _arrival(rank: int) -> str:
    return f"shard {rank}"


def _own_address(host: str, port: int) -> str:
    """The address of this machine that leads to `host`."""
    with socket.create_connection((host, port), JOIN_S) as connection:
        address: str = connection.getsockname()[0]
        return address


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
