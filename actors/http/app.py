"""The HTTP service: every route, over models that are known by `actors.online.model.OnlineModel` alone. Runs without Ray.

    texts = TextPool(folder)
    app = create_app([ServedModel(card=card, tokenizer=tokenizer, texts=texts, model=model)], keys=ApiKeys("keys.txt"))
    uvicorn.run(app, host="127.0.0.1")

What a request passes before a route is in `actors.http.gate`; each route's work is in a file of its own.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from actors.http.bodies.bounds import BodyBounds
from actors.http.bodies.classify_schema import ClassificationList, ClassifyBody
from actors.http.bodies.counted_json import route_class_of
from actors.http.bodies.labelling_schema import (
    DetokenizeBody,
    Detokenized,
    EmbeddingList,
    EmbeddingsBody,
    ExtractBody,
    ExtractionList,
    Health,
    ModelInfo,
    ModelList,
    Readiness,
    TokenizeBody,
    Tokens,
)
from actors.http.bodies.relevance_schema import Ranking, RerankBody, ScoreBody, ScoreList
from actors.http.bodies.schema import ChatBody, ChatCompletion, Completion, CompletionBody
from actors.http.errors import ErrorBody, install_error_answers
from actors.http.gate import OPEN_PATHS, Accounting, KeyCheck, is_trusted, note_of
from actors.http.limits import RequestLimits
from actors.http.readiness import ReadinessCheck
from actors.http.responses import json_response
from actors.http.routes.chat import answer_chat
from actors.http.routes.classify import answer_classify
from actors.http.routes.completions import answer_completion
from actors.http.routes.embeddings import answer_embeddings
from actors.http.routes.extract import answer_extract
from actors.http.routes.rerank import answer_rerank
from actors.http.routes.score import answer_score
from actors.http.routes.tokens import answer_detokenize, answer_tokenize
from actors.http.security import ApiKeys
from actors.http.served import ServedModel, Service

TITLE = "Millrace"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

Responses = dict[int | str, dict[str, Any]]


def create_app(
    models: Sequence[ServedModel],
    *,
    keys: ApiKeys | None = None,
    limits: RequestLimits | None = None,
    fallback: ServedModel | None = None,
) -> FastAPI:
    """The ASGI app of these models. Without `keys` it asks for none, so call
    `security.check_listen` before serving it. `fallback` is the one of them that answers to every
    other name, if there is one."""
    chosen = limits or RequestLimits()
    service = Service.of(models, chosen, fallback)
    app = FastAPI(
        title=TITLE, docs_url=None, redoc_url=None, lifespan=_closing(service)
    )  # these pages would load scripts from elsewhere
    app.router.route_class = route_class_of(chosen)
    _add_generation(app, service)
    _add_labelling(app, service)
    _add_relevance(app, service)
    _add_tokens(app, service)
    _add_models(app, service)
    _add_watching(app, service)
    install_error_answers(app, retry_after_s=chosen.retry_after_s)
    document = _document(app, has_keys=keys is not None)
    paths = frozenset(path for path in document["paths"] if "{" not in path)
    app.add_middleware(KeyCheck, keys=keys)
    app.add_middleware(BodyBounds, limits=chosen)
    app.add_middleware(Accounting, metrics=service.metrics, endpoints=paths)
    app.openapi = lambda: document  # type: ignore[method-assign]
    return app


def _closing(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What is the models' here ends with the app."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    return lifespan


def _add_generation(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", responses=_answers(ChatCompletion, streams=True))
    async def chat_completions(request: Request, body: ChatBody) -> Response:
        return await answer_chat(service, request, body)

    @app.post("/v1/completions", responses=_answers(Completion, streams=True))
    async def completions(request: Request, body: CompletionBody) -> Response:
        return await answer_completion(service, request, body)


def _add_labelling(app: FastAPI, service: Service) -> None:
    @app.post("/v1/embeddings", responses=_answers(EmbeddingList))
    async def embeddings(request: Request, body: EmbeddingsBody) -> Response:
        return await answer_embeddings(service, request, body)

    @app.post("/v1/classify", responses=_answers(ClassificationList))
    async def classify(request: Request, body: ClassifyBody) -> Response:
        return await answer_classify(service, request, body)

    @app.post("/v1/extract", responses=_answers(ExtractionList))
    async def extract(request: Request, body: ExtractBody) -> Response:
        return await answer_extract(service, request, body)


def _add_relevance(app: FastAPI, service: Service) -> None:
    @app.post("/v1/rerank", responses=_answers(Ranking))
    @app.post("/v2/rerank", responses=_answers(Ranking))
    @app.post("/rerank", responses=_answers(Ranking))
    async def rerank(request: Request, body: RerankBody) -> Response:
        return await answer_rerank(service, request, body)

    @app.post("/v1/score", responses=_answers(ScoreList))
    async def score(request: Request, body: ScoreBody) -> Response:
        return await answer_score(service, request, body)


def _add_tokens(app: FastAPI, service: Service) -> None:
    @app.post("/tokenize", responses=_answers(Tokens))
    async def tokenize(request: Request, body: TokenizeBody) -> Response:
        return await answer_tokenize(service, request, body)

    @app.post("/detokenize", responses=_answers(Detokenized))
    async def detokenize(request: Request, body: DetokenizeBody) -> Response:
        return await answer_detokenize(service, request, body)


def _add_models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=_answers(ModelList, *_ALWAYS))
    async def models() -> Response:
        return json_response(ModelList(data=[_info(served) for served in service.models.values()]))

    @app.get("/v1/models/{name:path}", responses=_answers(ModelInfo, *_ALWAYS, 404))
    async def model(request: Request, name: str) -> Response:
        return json_response(_info(service.find(name, note_of(request))))


def _add_watching(app: FastAPI, service: Service) -> None:
    readiness = ReadinessCheck(service.stats)

    @app.get("/health", responses={200: _success(Health)})
    async def health() -> Response:
        return json_response(Health())

    @app.get("/ready", responses=_answers(Readiness, 503))
    async def ready(request: Request) -> Response:
        return json_response(await readiness.look(tells_names=is_trusted(request)))

    @app.get("/metrics", responses=_metrics_answers())
    async def metrics() -> Response:
        service.metrics.show_stats(await service.stats())
        return Response(service.metrics.text(), headers={"content-type": PROMETHEUS})


def _info(served: ServedModel) -> ModelInfo:
    card = served.card
    return ModelInfo(id=card.name, created=card.created, max_model_len=card.facts.max_model_len, head=card.facts.head)


_ERRORS = {
    400: "The request cannot be served as it is; the text names the field",
    401: "The API key is missing or wrong",
    403: "The service has no keys, and was not addressed on this machine",
    404: "There is no such model",
    408: "The body came too slowly",
    413: "The body is too large",
    429: "Too much is going on; Retry-After says when to come back",
    500: "Something failed inside the service",
    503: "The engine is lost, or the service cannot check keys",
}
_ALWAYS = (401, 403, 503)


def _answers(body: type[Any], *errors: int, streams: bool = False) -> Responses:
    """What a route can answer, for the OpenAPI document; without `errors` all of them."""
    found: Responses = {200: _success(body, streams=streams)}
    return found | {status: {"model": ErrorBody, "description": _ERRORS[status]} for status in errors or tuple(_ERRORS)}


def _success(body: type[Any], *, streams: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"text/event-stream": {"schema": {"type": "string"}}} if streams else {}
    return {"model": body, "description": "The answer", "content": content}


def _metrics_answers() -> Responses:
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"}
    return _answers(ErrorBody, *_ALWAYS) | {200: text}


def _document(app: FastAPI, *, has_keys: bool) -> dict[str, Any]:
    """The OpenAPI document. Bodies that do not fit are answered with 400 here, so FastAPI's own
    422 is taken out, and so is its JSON answer of an endpoint that does not answer with JSON."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if path not in OPEN_PATHS and has_keys:
                operation["security"] = [{"key": []}]
    document["paths"]["/metrics"]["get"]["responses"]["200"]["content"].pop("application/json", None)
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if has_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document
