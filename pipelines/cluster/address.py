"""Whether a Ray cluster listens at an address, known in seconds: `ray.init` tries for two minutes
and cannot be interrupted.

The control store (GCS) of a cluster speaks gRPC, so what listens there has to answer HTTP/2, and then the question whether it is alive:
transparent proxies and the sidecars of service meshes answer HTTP/2 in the name of any address.
"""

import socket

from pipelines.cluster.control_store import OK, WANTS_TOKEN, answer_at, answers_without_certificate
from pipelines.cluster.ray_private import canonical_address
from pipelines.errors import ClusterError

CONNECT_S = 4.0
ANSWER_S = 4.0

_REMEDY = "give the host and port of `ray start --head` (6379)"
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
_SETTINGS_TYPE = 4


def check_address(address: str) -> None:
    """Asks whether a Ray cluster listens at `address`, auto or HOST:PORT.

    Raises:
        ClusterError: it does not, within seconds.
    """
    if address != "auto":
        _check_form(address)
    place = _found(address)
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as connection:
            can_ask = answers_without_certificate()
            is_grpc = not can_ask or _speaks_http2(connection)
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"no process listens at the Ray cluster {address!r} ({error}); is its head up, and is this the port of "
            "`ray start --head` (6379)?"
        ) from error
    if not is_grpc:
        raise ClusterError(f"what listens at {address!r} is not a Ray cluster; {_REMEDY}")
    if can_ask:
        _check_answer(address, place)


def _check_answer(address: str, place: str) -> None:
    """Refuses what does not answer as a cluster: Ray would ask again and again, for 20 seconds or longer."""
    answer = answer_at(place, timeout_s=ANSWER_S)
    if answer not in (OK, WANTS_TOKEN):
        raise ClusterError(
            f"what listens at {address!r} is not a Ray cluster, or one that hangs: the question whether it is alive "
            f"ended with {answer} (a proxy may answer for any address); {_REMEDY}"
        )


def _check_form(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in address:
        raise ClusterError(
            f"the cluster was {address!r}; it must be local, auto or HOST:PORT of the cluster's head node"
        )


def _found(address: str) -> str:
    """HOST:PORT, by Ray's own search and its own name for this machine."""
    try:
        return canonical_address(address) or address
    except (ConnectionError, ValueError) as error:
        raise ClusterError(f"cannot connect to the Ray cluster {address!r}: {error}") from error


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether the other side answers as a server of HTTP/2 must: with its settings (RFC 9113, 3.4)."""
    connection.sendall(_PREFACE + _EMPTY_SETTINGS)
    try:
        head = connection.recv(9)
    except OSError:  # it says nothing, or hangs up
        return False
    return len(head) >= 4 and head[3] == _SETTINGS_TYPE
