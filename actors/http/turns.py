"""Work of a request that counts as being served, so that there is a bounded amount of it, and that ends with its client."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from actors.http.served import ServedModel
from actors.http.sse import until_gone

Result = TypeVar("Result")


async def admitted(served: ServedModel, request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is admitted as one sequence, and given up when the client goes. The request's body has been read.

    Raises:
        OverloadedError: too much is going on.
        ClientGoneError: the client went.
    """
    try:
        with served.admission.admit(1):
            return await until_gone(request.receive, work)
    finally:
        work.close()
