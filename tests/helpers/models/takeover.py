"""What a neighbour did who took over the follower of a starting group: be the first to write into the key-value store in which rank 0 told
where calls come from, stand in the follower's place at rank 0, and send the follower a pickle that does what the neighbour likes.
"""

import pickle
import socket
import threading
import time
from datetime import timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from tests.helpers.strangers import Touching, family_of, listening

HOST = "127.0.0.1"
SECRET = bytes(16)
PATIENCE_S = 2.0


def take_over(pid: int, touched: Path, tried: Path, is_ready: Event, is_over: Event) -> None:
    """Tries it at every port that a process, or one below it, begins to listen at, until `is_over`. Every try makes a file in `tried`."""
    content = pickle.dumps(Touching(touched))
    content = len(content).to_bytes(8, "little") + content
    server = socket.create_server((HOST, 0))
    threading.Thread(target=_serve, args=(server, content), daemon=True).start()
    known = listening(family_of(pid))
    is_ready.set()
    while not is_over.wait(0.01):
        places = listening(family_of(pid)) - known
        known |= places
        for _, port in places:
            for attack in (_write_first, _call_first):
                threading.Thread(target=attack, args=(port, server.getsockname()[1], content), daemon=True).start()
            (tried / str(port)).touch()


def _serve(server: socket.socket, content: bytes) -> None:
    """Sends the pickle to whoever comes, as calls were sent."""
    while True:
        connection, _ = server.accept()
        connection.sendall(content)


def _write_first(port: int, own_port: int, content: bytes) -> None:
    """Tells the followers that calls come from here; once rank 0 has written the truth, takes a follower's place at it."""
    store = TCPStore(HOST, port, 2, False, timeout=timedelta(seconds=PATIENCE_S))
    mine = f"{own_port}:{SECRET.hex()}"
    store.set("calls", mine)
    while (said := store.get("calls").decode()) == mine:
        time.sleep(0.01)
    place, _, secret = said.partition(":")
    with socket.create_connection((HOST, int(place))) as connection:
        connection.sendall(bytes.fromhex(secret))
        time.sleep(PATIENCE_S)


def _call_first(port: int, _: int, content: bytes) -> None:
    """Sends the pickle right away."""
    with socket.create_connection((HOST, port)) as connection:
        connection.sendall(content)
        time.sleep(PATIENCE_S)
