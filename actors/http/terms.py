"""On what terms a request is answered beside what its body says. A client's request has the
defaults; code that calls the app in its own process may set others."""

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Final

from fastapi import Request

from models.engine.scheduling.request import Priority

TERMS: Final = "millrace.terms"
"""The key of a request's terms in its ASGI scope."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """`answer_id` stands behind the kind in an answer's id (None: a fresh one). `seed` keys the draws of a body without a seed of
    its own (None: none are repeated). `now` is when the answer is made, as chat templates are told (None: at this moment). Without
    `may_stream` an answer is whole."""

    priority: Priority = "online"
    answer_id: str | None = None
    seed: int | None = None
    now: dt.datetime | None = None
    may_stream: bool = True

    def new_id(self, kind: str) -> str:
        """The id of an answer of this kind."""
        return f"{kind}-{self.answer_id or uuid.uuid4().hex}"

    @property
    def moment(self) -> dt.datetime:
        """When the answer is made."""
        return self.now or dt.datetime.now(dt.UTC)

    @property
    def created(self) -> int:
        """The same as a Unix time in seconds."""
        return int(self.moment.timestamp())


CLIENTS: Final = Terms()


def terms_of(request: Request) -> Terms:
    """The terms of a request."""
    terms: Terms = request.scope.get(TERMS, CLIENTS)
    return terms
