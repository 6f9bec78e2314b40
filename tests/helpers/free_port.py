"""A port for a process that is given its number before it listens."""

import secrets
import socket

PORTS = range(20_000, 32_000)
"""Those that neither Ray's workers take (10002 to 19999) nor Linux gives to whoever asks for any (from 32768)."""

_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, that this process did not give before, and that nobody gets by chance until it is used."""
    while True:
        port = secrets.choice(PORTS)
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port
