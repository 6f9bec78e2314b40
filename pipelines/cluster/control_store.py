"""The one question that is asked of a Ray cluster's control store (GCS) without a Ray of our own: is it alive?"""

import os

OK = "OK"
WANTS_TOKEN = "UNAUTHENTICATED"

_QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_OPTIONS = (("grpc.enable_http_proxy", 0),)  # Ray's own connections pass by http_proxy, too
_TLS = "RAY_USE_TLS"


def answers_without_certificate() -> bool:
    """Whether Ray is told to connect without TLS; with TLS only clients that have a certificate
    are answered."""
    return os.environ.get(_TLS) != "1"


def answer_at(address: str, *, timeout_s: float) -> str:
    """How HOST:PORT answers the question, asked without a token: `OK` from a cluster that takes anybody, `WANTS_TOKEN` from one that
    asks for one. Where no cluster is, gRPC's name for what happened: UNAVAILABLE, DEADLINE_EXCEEDED, or what an HTTP status stands
    for (404: UNIMPLEMENTED)."""
    import grpc  # as Ray Serve does

    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        ask = channel.unary_unary(_QUESTION)
        try:
            ask(b"", timeout=timeout_s)
        except grpc.RpcError as error:
            return str(error.code().name)
    return OK
