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
from models.errors import EngineError, ParameterError, RequestError, TemplateError

logger = logging.getLogger(__name__)

INVALID = "invalid_request_error"
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_SIMPLE_TYPES = frozenset({"str", "int", "float", "bool", "none", "dict", "list"})
_MAX_SHOWN = 64
"""Characters of a field's name that an error repeats."""

_NEUTRAL_ONLY = frozenset(
    {
        "audio", "best_of", "function_call", "functions", "metadata", "modalities",
        "parallel_tool_calls", "prediction", "reasoning_effort", "response_format", "service_tier",
        "store", "suffix", "tool_call_id", "tool_calls", "tool_choice", "tools", "verbosity", "web_search_options",
        "annotations", "refusal", "name",
    }
)  # fmt: skip
"""Fields of which only a value that asks for nothing is taken."""


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
        case ParameterError():
            told = ApiError(400, str(error), param=error.name)
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
            logger.error("a request failed: %s at %s", type(error).__name__, _code_line(error))
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
    is_extra = first["type"] == "extra_forbidden"
    param = _param(first["loc"], ends_with_field=is_extra)
    field = None if param is None else param.partition("[")[0]
    if is_extra or field in _NEUTRAL_ONLY:
        return unsupported((param if is_extra else field) or "a field")
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"the body is not valid JSON: {first['msg']} at byte {first['loc'][1]}", code="invalid_json"
        )
    message = str(first["msg"])
    return ApiError(400, f"{param}: {message}" if param else f"the body is wrong: {message}", param=param)


def install_error_answers(app: FastAPI, *, retry_after_s: int) -> None:
    """Has the app answer every error in this shape."""

    async def answer(_: Request, error: Exception) -> Response:
        return api_error(error, retry_after_s=retry_after_s).response()

    for kind in (ApiError, RequestError, TemplateError, EngineError, OverloadedError, HTTPException):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(RequestValidationError, answer)


def _param(location: Sequence[int | str], *, ends_with_field: bool) -> str | None:
    """messages[0].content of ("body", "messages", 0, "content", "str"); names of union members are
    left out, except for a last part that is a field, however it is called."""
    name, last = "", len(location) - 1
    for place, part in enumerate(location[1:], start=1):
        if isinstance(part, int):
            name += f"[{part}]"
        elif (ends_with_field and place == last) or not _is_union_member(part):
            name += f".{_shortened(part)}" if name else _shortened(part)
    return name or None


def _is_union_member(part: str) -> bool:
    return part in _SIMPLE_TYPES or not part.isidentifier() or part[:1].isupper()


def _shortened(field: str) -> str:
    if len(field) <= _MAX_SHOWN:
        return field
    return f"{field[:_MAX_SHOWN]}... ({len(field)} characters)"


def _code_line(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
