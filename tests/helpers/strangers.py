"""Neighbours on the network, as the shards of a replica meet them: what listens, who connects to all of it, and with what."""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.background import in_background

LISTENING = "0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h
HOLD_S = 20.0
WORDS: dict[str, bytes] = {
    "nothing": b"",
    "half a handshake": b"millrace\0\1\0\0\0" + b"n" * 7,
    "a whole hello": b"millrace\0\1\0\0\0" + b"n" * 32,
    "a length of 1 GiB": (2**30).to_bytes(8, "little"),
    "HTTP": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "noise": random.Random(0).randbytes(4096),
}


class Touching:
    """Its pickle makes a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self._file,)


def listening(pids: Iterable[int]) -> set[tuple[str, int]]:
    """The addresses and ports at which these processes listen, as the kernel has them; one in IPv6 as it writes it."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTENING and rest[5] in inodes:
                address, _, port = local.partition(":")
                found.add((_dotted(address), int(port, 16)))
    return found


def family_of(pid: int) -> list[int]:
    """A process and all that it has started, and those in turn."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, _text(task).split())
    return found


@contextmanager
def scanning(pids: Callable[[], Iterable[int]], *, without: Collection[tuple[str, int]] = ()) -> Iterator["Scanner"]:
    """Connects to every port that some processes open, with every one of `WORDS`, for as long as the context is open, and holds the
    connections for a while. It leaves out the places `without`."""
    scanner = Scanner(pids, without)
    with in_background(scanner.run):
        yield scanner


class Scanner:
    """`met` counts what it has said to which port, `seen` has all places at which it found them listening."""

    def __init__(self, pids: Callable[[], Iterable[int]], without: Collection[tuple[str, int]]) -> None:
        self.met: Counter[tuple[int, str]] = Counter()
        self.seen: set[tuple[str, int]] = set()
        self._pids, self._without = pids, without
        self._held: list[tuple[float, socket.socket]] = []

    def run(self, is_over: threading.Event) -> None:
        while not is_over.wait(0.02):
            places = listening(self._pids()).difference(self._without)
            self.seen |= places
            for address, port in places:
                for name, words in WORDS.items():
                    if self.met[port, name] < 3:
                        self._say(address, port, name, words)
            while self._held and self._held[0][0] < time.monotonic():
                self._held.pop(0)[1].close()
        for _, connection in self._held:
            connection.close()

    def _say(self, address: str, port: int, name: str, words: bytes) -> None:
        try:
            connection = socket.create_connection((address, port), 1.0)
        except OSError:  # it has closed again
            return
        self._held.append((time.monotonic() + HOLD_S, connection))
        self.met[port, name] += 1
        try:
            connection.sendall(words)
        except OSError:
            return


def _sockets(pid: int) -> list[str]:
    found = []
    try:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            target = str(file.readlink())
            if target.startswith("socket:["):
                found.append(target.removeprefix("socket:[").removesuffix("]"))
    except FileNotFoundError:  # the process, or the file, is gone
        pass
    return found


def _dotted(address: str) -> str:
    """An address of /proc/net/tcp, whose words are in this machine's byte order."""
    words = [int(address[start : start + 8], 16) for start in range(0, len(address), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the process is gone
        return ""
