"""Errors as OpenAI's API shows them: a status, and a body with message, type, param and code.

Nothing that a client sent is repeated but names and numbers, and nothing is said of what went wrong inside but its kind.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from actors.errors import KeyFileError, OverloadedError
from actors.openai_schema import NEUTRAL_ONLY
from models.errors import EngineError, RequestError, TemplateError

logger = logging.getLogger(__name__)

INVALID = "invalid_request_error"
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_SIMPLE_TYPES = frozenset({"str", "int", "float", "bool", "none", "dict", "list"})


class ErrorDetail(BaseModel):
    """What went wrong; `param` names the field of the request that it is about."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is no 200."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        kind = _TYPES.get(status, INVALID if status < 500 else "server_error")
        text = message.encode("utf-8", "replace").decode()  # names of fields can hold half a surrogate pair
        param = None if param is None else param.encode("utf-8", "replace").decode()
        self.body = ErrorBody(error=ErrorDetail(message=text, type=kind, param=param, code=code))

    def response(self) -> Response:
        """The HTTP response."""
        return Response(
            self.body.model_dump_json(), status_code=self.status, headers=self.headers, media_type="application/json"
        )


def api_error(error: Exception, *, retry_after_s: int = 1) -> ApiError:
    """What a client is told of an error that ends its request."""
    retry = {"Retry-After": str(retry_after_s)}
    match error:
        case ApiError():
            told = error
        case RequestError() | TemplateError():
            told = ApiError(400, str(error))
        case OverloadedError():
            told = ApiError(429, f"{error}; try again later", code="overloaded", headers=retry)
        case EngineError():
            logger.error("a request ended with its engine: %s", error)
            told = ApiError(503, "the engine was lost; try again later", code="engine_lost", headers=retry)
        case KeyFileError():
            logger.error("%s", error)
            told = ApiError(503, "the service cannot check keys now", code="keys_unavailable", headers=retry)
        case HTTPException():
            told = ApiError(error.status_code, str(error.detail), headers=error.headers)
        case RequestValidationError():
            told = validation_error(error.errors())
        case _:  # its text may hold a prompt: its type and place are logged, its text is not
            logger.error("a request failed: %s at %s", type(error).__name__, _place(error))
            told = ApiError(500, "the request failed for a reason inside the service", code="internal_error")
    return told


def too_long(what: str, num_tokens: int, limit: int, param: str) -> ApiError:
    """The answer to what needs more tokens than there are."""
    return ApiError(
        400,
        f"{what} {num_tokens} tokens; at most {limit} are possible: shorten it",
        param=param,
        code="context_length_exceeded",
    )


def unsupported(name: str, why: str = "is not supported by this service; leave it out") -> ApiError:
    """The answer to a parameter that would have to be ignored."""
    return ApiError(400, f"{name} {why}", param=name, code="unsupported_parameter")


def validation_error(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The answer to a body that does not fit its schema: the first field that is wrong, and why."""
    first = errors[0]
    param = _param(first["loc"])
    if first["type"] == "extra_forbidden" or param in NEUTRAL_ONLY:
        return unsupported(param or "a field")
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is not valid JSON", code="invalid_json")
    message = str(first["msg"])
    return ApiError(400, f"{param}: {message}" if param else f"the body is wrong: {message}", param=param)


def install_error_answers(app: FastAPI, *, retry_after_s: int) -> None:
    """Has the app answer every error in this shape."""

    async def answer(_: Request, error: Exception) -> Response:
        return api_error(error, retry_after_s=retry_after_s).response()

    for kind in (ApiError, RequestError, TemplateError, EngineError, OverloadedError, HTTPException):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(RequestValidationError, answer)


def _param(location: Sequence[int | str]) -> str | None:
    """messages[0].content of ("body", "messages", 0, "content", "str"); names of union members are left out."""
    name = ""
    for part in location[1:]:
        if isinstance(part, int):
            name += f"[{part}]"
        elif name and (part in _SIMPLE_TYPES or not part.isidentifier() or part[:1].isupper()):
            break
        else:
            name += f".{part}" if name else part
    return name or None


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
