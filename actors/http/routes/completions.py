"""POST /v1/completions: prompts in, texts out, whole or as they come; with `echo` the prompts too, and how likely the model finds them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.schema import Completion, CompletionBody, CompletionChoice, CompletionLogprobs, FinishReason
from actors.http.errors import ApiError
from actors.http.gate import note_of
from actors.http.limits import RequestLimits
from actors.http.responses import json_response
from actors.http.routes.generation import Generation, finish_reason
from actors.http.routes.logprobs import CompletionLogprobsMaker, joined
from actors.http.routes.prompts import Input, Int32Array, check_num_inputs, decode, encode_inputs, inputs_of
from actors.http.routes.sampling import check_common, check_length, requests_of, sampling_of, with_tokens_of_rules
from actors.http.served import ServedModel, Service
from actors.http.sse import EventStream, until_gone
from actors.http.terms import terms_of
from actors.http.turns import admitted
from models.engine.scheduling.request import Delta
from models.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16


async def answer_completion(service: Service, request: Request, body: CompletionBody) -> Response:
    """The response to a completion request."""
    note, terms = note_of(request), terms_of(request)
    served = service.find(body.model, note)
    served.require_head("causal")
    check_common(body, service.limits, terms)
    inputs = inputs_of(body.prompt)
    check_num_inputs(inputs, service.limits, param="prompt")
    asked = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    encoded = await admitted(served, request, encode_inputs(inputs, served, service.limits, param="prompt"))
    for token_ids in encoded:
        check_length(len(token_ids), max(1, asked), served.card, param="prompt")
    if body.echo and body.logprobs is not None:
        _check_num_logprobs(sum(map(len, encoded)) * (body.n or 1), body.logprobs, service.limits)
    echoed = await admitted(served, request, _texts_of(inputs, encoded, served)) if body.echo else [None] * len(inputs)
    prompts: list[tuple[int, ...]] = [tuple(token_ids.tolist()) for token_ids in encoded]
    params = sampling_of(
        body,
        max_tokens=max(1, asked),  # the engine always draws a token; of 0 it is not shown
        logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None,
    )
    params = await with_tokens_of_rules(params, served, request, service.limits)
    answer_id, num_each = terms.new_id("cmpl"), body.n or 1
    requests = requests_of([(token_ids, params) for token_ids in prompts], num_each, terms)
    generation = Generation(service, served, requests, note, num_each=num_each, is_discarded=asked == 0)
    shown = [
        ShownText(served.tokenizer, prompt, echoed=text, wants_logprobs=body.logprobs is not None, is_silent=asked == 0)
        for prompt, text in zip(prompts, echoed, strict=True)
        for _ in range(num_each)
    ]  # fmt: skip
    answer = CompletionAnswer(answer_id, served, generation, shown, created=terms.created)
    if body.stream:
        wants_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return EventStream(answer.chunks(wants_usage=wants_usage), note=note, explain=service.explain)
    return json_response(await until_gone(request.receive, answer.whole()))


def _check_num_logprobs(num_tokens: int, num_top: int, limits: RequestLimits) -> None:
    """Refuses more log probabilities of prompts than an answer may have."""
    total = num_tokens * (1 + num_top)
    if total > limits.max_prompt_logprobs:
        raise ApiError(
            400,
            f"echo with logprobs {num_top} asks for {total} log probabilities of {num_tokens} tokens of prompts; at most "
            f"{limits.max_prompt_logprobs} are possible: lower logprobs or shorten the prompt",
            param="logprobs",
        )


class ShownText:
    """What is shown of one sequence: its prompt's text if that is echoed, and its tokens unless none were asked for."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        echoed: str | None,
        wants_logprobs: bool,
        is_silent: bool,
    ) -> None:
        self._prompt_text, self._prompt, self._is_silent = echoed or "", prompt, is_silent
        self._echo_is_due = echoed is not None
        self._logprobs = CompletionLogprobsMaker(tokenizer) if wants_logprobs else None

    async def take(self, delta: Delta) -> "ChoicePart":
        """What a delta adds; a prompt's log probabilities are put together beside the event loop."""
        is_long = self._echo_is_due and self._logprobs is not None
        return await asyncio.to_thread(self._add, delta) if is_long else self._add(delta)

    def _add(self, delta: Delta) -> "ChoicePart":
        text = "" if self._is_silent else delta.text
        parts: list[CompletionLogprobs] = []
        if self._echo_is_due:  # all of the prompt is computed when the first token comes
            self._echo_is_due = False
            text = self._prompt_text + text
            if self._logprobs is not None:
                parts.append(self._logprobs.prompt(self._prompt, delta.prompt_logprobs or ()))
        if self._logprobs is not None and delta.logprobs and not self._is_silent:
            parts.append(self._logprobs.answer(delta.logprobs))
        reason = finish_reason(delta)
        return ChoicePart(
            text=text,
            logprobs=joined(parts) if parts else None,
            finish_reason="length" if reason is not None and self._is_silent else reason,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoicePart:
    """A part of a choice."""

    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None

    def choice(self, index: int) -> CompletionChoice:
        """As a choice of that number."""
        return CompletionChoice(index=index, text=self.text, logprobs=self.logprobs, finish_reason=self.finish_reason)


class CompletionAnswer:
    """The texts of one request, in the shapes of OpenAI's API."""

    def __init__(
        self, answer_id: str, served: ServedModel, generation: Generation, shown: Sequence[ShownText], *, created: int
    ) -> None:
        self._id, self._served, self._generation, self._shown = answer_id, served, generation, shown
        self._created = created

    async def whole(self) -> Completion:
        """Everything at once."""
        parts: list[list[ChoicePart]] = [[] for _ in self._shown]
        async with aclosing(self._generation.deltas()) as deltas:
            async for item in deltas:
                parts[item.index].append(await self._shown[item.index].take(item.delta))
        return self._completion([_whole(of_one).choice(index) for index, of_one in enumerate(parts)], has_usage=True)

    async def chunks(self, *, wants_usage: bool) -> AsyncGenerator[Completion]:
        """One event for each change."""
        async with aclosing(self._generation.deltas()) as deltas:
            async for item in deltas:
                part = await self._shown[item.index].take(item.delta)
                if part.text or part.logprobs is not None or part.finish_reason is not None:
                    yield self._completion([part.choice(item.index)], has_usage=False)
        if wants_usage:
            yield self._completion([], has_usage=True)

    def _completion(self, choices: list[CompletionChoice], *, has_usage: bool) -> Completion:
        return Completion(
            id=self._id,
            created=self._created,
            model=self._served.card.name,
            choices=choices,
            usage=self._generation.usage() if has_usage else None,
        )


def _whole(parts: Sequence[ChoicePart]) -> ChoicePart:
    logprobs = [part.logprobs for part in parts if part.logprobs is not None]
    return ChoicePart(
        text="".join(part.text for part in parts),
        logprobs=joined(logprobs) if logprobs else None,
        finish_reason=parts[-1].finish_reason,
    )


async def _texts_of(
    inputs: Sequence[Input], encoded: Sequence[Int32Array], served: ServedModel
) -> Sequence[str | None]:
    """Echoed prompts: the texts that were given, or all that their tokens say."""
    return [
        given if isinstance(given, str) else await decode(token_ids, served, param="prompt")
        for given, token_ids in zip(inputs, encoded, strict=True)
    ]
