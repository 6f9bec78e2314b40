"""POST /v1/chat/completions: a conversation in, answers out, whole or as they come."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from fastapi import Request
from fastapi.responses import Response

from actors.http.bodies.schema import (
    ChatAnswerMessage,
    ChatBody,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
)
from actors.http.errors import ApiError
from actors.http.gate import note_of
from actors.http.responses import json_response
from actors.http.routes.generation import Collected, Generation, Numbered, finish_reason
from actors.http.routes.logprobs import chat_logprobs
from actors.http.routes.prompts import check_num_tokens, encode_chat
from actors.http.routes.sampling import check_common, check_length, requests_of, sampling_of, with_tokens_of_rules
from actors.http.served import ServedModel, Service
from actors.http.sse import EventStream, until_gone
from actors.http.terms import terms_of
from actors.http.turns import admitted
from actors.online.model import ModelCard
from models.engine.scheduling.request import TokenLogprobs


async def answer_chat(service: Service, request: Request, body: ChatBody) -> Response:
    """The response to a chat request."""
    note, terms = note_of(request), terms_of(request)
    served = service.find(body.model, note)
    served.require_head("causal")
    check_common(body, service.limits, terms)
    num_top = _num_top(body)
    variables = body.chat_template_kwargs or {}
    token_ids = await admitted(served, request, encode_chat(body.messages, served, variables, now=terms.moment))
    check_num_tokens([token_ids], service.limits, param="messages")
    max_tokens = _max_tokens(body, len(token_ids), served.card)
    check_length(len(token_ids), max_tokens, served.card, param="messages")
    params = sampling_of(body, max_tokens=max_tokens, logprobs=num_top)
    params = await with_tokens_of_rules(params, served, request, service.limits)
    answer_id, num_each = terms.new_id("chatcmpl"), body.n or 1
    requests = requests_of([(tuple(token_ids.tolist()), params)], num_each, terms)
    generation = Generation(service, served, requests, note, num_each=num_each)
    answer = ChatAnswer(answer_id, served, generation, created=terms.created, num_top=num_top)
    if body.stream:
        wants_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return EventStream(answer.chunks(wants_usage=wants_usage), note=note, explain=service.explain)
    return json_response(await until_gone(request.receive, answer.whole()))


class ChatAnswer:
    """The answers to one conversation, in the shapes of OpenAI's API."""

    def __init__(
        self, answer_id: str, served: ServedModel, generation: Generation, *, created: int, num_top: int | None
    ) -> None:
        self._id, self._served, self._generation, self._num_top = answer_id, served, generation, num_top
        self._created = created

    async def whole(self) -> ChatCompletion:
        """Everything at once."""
        found = await self._generation.finish()
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._served.card.name,
            choices=[self._choice(index, one) for index, one in enumerate(found)],
            usage=self._generation.usage(),
        )

    async def chunks(self, *, wants_usage: bool) -> AsyncGenerator[ChatChunk]:
        """One event for each change; the role of each answer comes with its first."""
        has_begun: set[int] = set()
        async with aclosing(self._generation.deltas()) as deltas:
            async for item in deltas:
                choice = self._chunk_choice(item)
                if item.index not in has_begun:
                    has_begun.add(item.index)
                    yield self._chunk(
                        [ChatChunkChoice(index=item.index, delta=ChatDelta(role="assistant", content=""))]
                    )
                if choice is not None:
                    yield self._chunk([choice])
        if wants_usage:
            yield self._chunk([]).model_copy(update={"usage": self._generation.usage()})

    def _choice(self, index: int, found: Collected) -> ChatChoice:
        assert found.finish_reason is not None, "a finished sequence has a reason"
        return ChatChoice(
            index=index,
            message=ChatAnswerMessage(content=found.text),
            logprobs=self._logprobs(found.logprobs),
            finish_reason=found.finish_reason,
        )

    def _chunk_choice(self, item: Numbered) -> ChatChunkChoice | None:
        """None if there is nothing to show yet."""
        delta = item.delta
        logprobs = self._logprobs(delta.logprobs or ()) if delta.logprobs else None
        reason = finish_reason(delta)
        if not delta.text and logprobs is None and reason is None:
            return None
        return ChatChunkChoice(
            index=item.index,
            delta=ChatDelta(content=delta.text or None),
            logprobs=logprobs,
            finish_reason=reason,
        )

    def _logprobs(self, entries: Sequence[TokenLogprobs]) -> ChatLogprobs | None:
        if self._num_top is None:
            return None
        return chat_logprobs(entries, self._served.tokenizer, self._num_top)

    def _chunk(self, choices: list[ChatChunkChoice]) -> ChatChunk:
        return ChatChunk(id=self._id, created=self._created, model=self._served.card.name, choices=choices)


def _num_top(body: ChatBody) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs is for logprobs: true", param="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _max_tokens(body: ChatBody, num_prompt: int, card: ModelCard) -> int:
    """What the body says; by default all that the model has room for, and at least one."""
    given = [count for count in (body.max_completion_tokens, body.max_tokens) if count is not None]
    if len(set(given)) > 1:
        raise ApiError(
            400, "max_tokens and max_completion_tokens differ; give one of them", param="max_completion_tokens"
        )
    return given[0] if given else max(1, card.facts.max_model_len - num_prompt)
