"""What the HTTP proxy of Ray Serve gets: bounds on connections and bodies, in the process that all bytes come to first.

Serve's proxy hands a body on to the service as fast as it comes, and keeps what the service has not fetched yet. It asks the function
that `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names (see `jobs.serve.environment`) for middlewares, before it starts its server.
"""

from starlette.middleware import Middleware
from uvicorn.config import HTTP_PROTOCOLS

from actors.http.bodies.bounds import BodyBounds
from actors.http.limits import RequestLimits


def middlewares() -> list[Middleware]:
    """The middlewares of Serve's proxy. Called in its process, this also has its server use our connections: it runs uvicorn with the
    protocol that uvicorn chooses by itself, and has no setting for another."""
    HTTP_PROTOCOLS["auto"] = "actors.http.connections:BoundedConnection"
    return [Middleware(BodyBounds, limits=RequestLimits())]
