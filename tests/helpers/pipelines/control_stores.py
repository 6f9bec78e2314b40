"""What may listen where a Ray cluster's control store is looked for: servers that answer its question, other questions, or none."""

import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
"""An empty SETTINGS frame (RFC 9113, 6.5)."""


@contextmanager
def control_store(refusal: grpc.StatusCode | None) -> Iterator[str]:
    """The address of one that says it is alive, or refuses to with a status."""

    def answer(request: bytes, context: Any) -> bytes:
        if refusal is not None:
            context.abort(refusal, "InvalidAuthToken")
        return b""

    methods = {"CheckAlive": grpc.unary_unary_rpc_method_handler(answer)}
    with _serving([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", methods)]) as address:
        yield address


@contextmanager
def strange_server() -> Iterator[str]:
    """The address of a gRPC server without any service."""
    with _serving([]) as address:
        yield address


@contextmanager
def _serving(handlers: list[Any]) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=handlers)
    port = server.add_insecure_port("0.0.0.0:0")  # Ray puts this machine's own address for 127.0.0.1
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server of HTTP/2 that sends its settings to whoever connects, and nothing more."""
    connections: list[socket.socket] = []
    with socket.create_server(("", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # shut down
                    return
                connections.append(connection)
                connection.sendall(SETTINGS)

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()
            for connection in connections:
                connection.close()
