"""How Ray Serve passes requests between its processes: it reads this from the environment, once and in every process.

By itself Serve passes every piece of a stream as an object of Ray's store, over threads of its own, which is half of what a served token
costs. Here pieces go over gRPC, and a replica has one event loop. The proxy gets the bounds of `actors.serve.proxy`. The image sets the
same (see `Dockerfile`).
"""

import os
from collections.abc import Mapping
from typing import Final

SERVE_ENVIRONMENT: Final[Mapping[str, str]] = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(1 << 30),  # vectors of many texts are one answer
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "actors.serve.proxy.middlewares",
}


def set_serve_environment() -> None:
    """Sets what is not set yet, for this process and a cluster that it starts. To be called before Ray Serve is imported."""
    for name, value in SERVE_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
