"""What endpoints of one forward pass have in common: lengths, admission, tokens counted, values
that are not finite."""

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import Request

from actors.http.bodies.labelling_schema import InputUsage
from actors.http.errors import ApiError, too_long
from actors.http.gate import note_of
from actors.http.routes.prompts import Int32Array
from actors.http.served import ServedModel, Service
from actors.http.turns import admitted
from actors.online.model import FloatArray

Result = TypeVar("Result")


async def scored(
    service: Service,
    request: Request,
    served: ServedModel,
    work: Coroutine[Any, Any, Result],
    token_ids: Sequence[Sequence[int]],
) -> Result:
    """The result of a call of the model, admitted as one sequence: what it computes at a time is bounded. Given up when the client goes.

    Raises:
        OverloadedError: too much is going on.
    """
    result = await admitted(served, request, work)
    service.metrics.count_prompt(note_of(request), sum(map(len, token_ids)))
    return result


def check_lengths(token_ids: Sequence[Sequence[int] | Int32Array], limit: int) -> None:
    """Refuses an input that is longer than the model.

    Raises:
        ApiError: 400, with both numbers.
    """
    for index, ids in enumerate(token_ids):
        if len(ids) > limit:
            raise too_long(f"input[{index}] has", len(ids), limit, "input")


def check_finite(values: FloatArray) -> None:
    """Raises ApiError for values that are not numbers."""
    if not np.isfinite(values).all():
        raise ApiError(
            500, "the model answered with values that are not numbers; serve it with dtype: float32", code="not_finite"
        )


def usage_of(token_ids: Sequence[Sequence[int]]) -> InputUsage:
    """Tokens of all that was computed."""
    total = sum(map(len, token_ids))
    return InputUsage(prompt_tokens=total, total_tokens=total)
