"""What every HTTP request passes before a route sees it: accounting and keys. Plain ASGI, outermost first."""

import logging
from collections.abc import Collection
from time import monotonic

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.errors import KeyFileError
from actors.http.errors import ApiError, api_error
from actors.http.security import ApiKeys, is_loopback
from actors.http.sse import ClientGoneError
from actors.http.terms import CLIENTS, TERMS, Terms
from actors.online.metrics import Metrics, RequestNote

logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/health", "/ready"})
OTHER = "other"
"""The endpoint under which all unknown paths are counted."""

_NOTE = "millrace.note"
_IS_TRUSTED = "millrace.is_trusted"
_BEARER = b"bearer "


def note_of(request: Request) -> RequestNote:
    """The note of a request that came through `Accounting`."""
    note: RequestNote = request.scope[_NOTE]
    return note


def is_trusted(request: Request) -> bool:
    """Whether a request that came through `KeyCheck` may learn what only holders of a key are told, though its path is open."""
    found: bool = request.scope[_IS_TRUSTED]
    return found


class Accounting:
    """Counts each request once it has ended, logs a line about it, and answers for whatever a route did not catch. What was asked and
    answered is in neither."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, endpoints: Collection[str]) -> None:
        """`endpoints` are the paths that have a label of their own."""
        self._app, self._metrics, self._endpoints = app, metrics, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = path_of(scope)
        terms: Terms = scope.get(TERMS, CLIENTS)
        note = RequestNote(endpoint=path if path in self._endpoints else OTHER, priority=terms.priority)
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                note.status, has_begun = str(message["status"]), True
            await send(message)

        try:
            await self._app({**scope, _NOTE: note}, receive, sending)
        except ClientGoneError:
            note.outcome = "499"
        except Exception as error:  # the process boundary
            if has_begun:
                raise
            await api_error(error).response()(scope, receive, sending)
        finally:
            self._metrics.count_request(note)
            logger.info(
                "%s %s %s %.3f s",
                note.endpoint,
                note.model or "-",
                note.outcome or note.status,
                monotonic() - note.started,
            )


class KeyCheck:
    """Asks for one of the keys, but on open paths. Without keys it asks that a request is addressed to this machine itself, so that no
    web page reaches a local service through a host name of its own."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys | None, open_paths: Collection[str] = OPEN_PATHS) -> None:
        self._app, self._keys, self._open_paths = app, keys, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_trusted = True
        try:
            self._check(dict(scope["headers"]))
        except (ApiError, KeyFileError) as error:
            if path_of(scope) not in self._open_paths:
                await api_error(error).response()(scope, receive, send)
                return
            is_trusted = False
        await self._app({**scope, _IS_TRUSTED: is_trusted}, receive, send)

    def _check(self, headers: dict[bytes, bytes]) -> None:
        if self._keys is None:
            _check_host(headers.get(b"host", b"").decode("latin-1"))
            return
        given = headers.get(b"authorization", b"")
        challenge = {"WWW-Authenticate": "Bearer"}
        if given[: len(_BEARER)].lower() != _BEARER:
            raise ApiError(
                401, "no API key was given; send Authorization: Bearer KEY", code="missing_api_key", headers=challenge
            )
        if not self._keys.allow(given[len(_BEARER) :].strip()):
            raise ApiError(401, "the API key is not one of this service's", code="invalid_api_key", headers=challenge)


def path_of(scope: Scope) -> str:
    """The path of a request within the app, wherever that is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _check_host(host: str) -> None:
    name = host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if not is_loopback(name):
        raise ApiError(403, "a service without API keys answers only requests to a loopback address", code="no_keys")
