"""Request schemas are bounded: every list and map says how long it may be, and the first wrong element ends its validation."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from actors.http.app import create_app
from actors.http.bodies.classify_schema import ClassifyBody
from actors.http.bodies.labelling_schema import DetokenizeBody, EmbeddingsBody, ExtractBody, TokenizeBody
from actors.http.bodies.relevance_schema import RerankBody, ScoreBody
from actors.http.bodies.schema import ChatBody, CompletionBody
from actors.http.bodies.types import MAX_FIELDS
from actors.http.errors import validation_error

BODIES: dict[str, Any] = {
    "chat": ChatBody,
    "completions": CompletionBody,
    "embeddings": EmbeddingsBody,
    "classify": ClassifyBody,
    "extract": ExtractBody,
    "rerank": RerankBody,
    "score": ScoreBody,
    "tokenize": TokenizeBody,
    "detokenize": DetokenizeBody,
}
WRONG: list[Any] = [0.5, {}, [], [{}], None, "x", 5, True, {"role": "user"}, {"type": "text"}, [0.5]]
MANY = 20_000


def parts_of(node: Any, schemas: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema within one, with its place."""
    if isinstance(node, list):
        for item in node:
            yield from parts_of(item, schemas, path)
    if not isinstance(node, dict):
        return
    if "$ref" in node:
        yield from parts_of(schemas[node["$ref"].rpartition("/")[2]], schemas, path)
        return
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from parts_of(inner, schemas, f"{path}.{name}")
    for key in ("anyOf", "oneOf", "allOf", "items", "additionalProperties"):
        yield from parts_of(node.get(key), schemas, f"{path}/{key}")


def test_every_list_and_map_of_every_request_says_how_long_it_may_be() -> None:
    document = create_app([]).openapi()
    lists, maps = [], []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            body = operation.get("requestBody")
            if body is None:
                continue
            (content,) = body["content"].values()
            for place, part in parts_of(content["schema"], document["components"]["schemas"], path):
                if part.get("type") == "array":
                    lists.append(place)
                    assert part.get("maxItems") is not None, place
                if part.get("type") == "object" and part.get("additionalProperties") is not False:
                    maps.append(place)
                    assert part.get("maxProperties") is not None, place
    assert "/v1/completions.prompt/oneOf/items" in lists
    assert "/v1/chat/completions.chat_template_kwargs/anyOf" in maps


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("name", BODIES)
def test_a_list_of_what_is_wrong_is_a_few_errors(name: str, wrong: Any) -> None:
    """In every field of a body at once: a few for each, not one for each element."""
    adapter = TypeAdapter(BODIES[name])
    fields = {
        field
        for _, part in parts_of(adapter.json_schema(), _definitions(adapter), "")
        for field in part.get("properties", ())
    }
    body = dict.fromkeys(fields, [wrong] * MANY) | {"messages": [{"role": "user", "content": [wrong] * MANY}]}
    with pytest.raises(ValidationError) as raised:
        adapter.validate_python(body)
    assert raised.value.error_count() < 6 * len(body)


@pytest.mark.parametrize("name", BODIES)
def test_a_map_of_what_is_wrong_is_a_few_errors(name: str) -> None:
    adapter = TypeAdapter(BODIES[name])
    fields = {
        field
        for _, part in parts_of(adapter.json_schema(), _definitions(adapter), "")
        for field in part.get("properties", ())
    }
    wrong: dict[str, Any] = {f"k{number}": [] for number in range(MANY)}
    body: dict[str, Any] = dict.fromkeys(fields, wrong) | {"messages": []}
    with pytest.raises(ValidationError) as raised:
        adapter.validate_python(body)
    assert raised.value.error_count() < 6 * len(body)


def _definitions(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    found: dict[str, Any] = adapter.json_schema().get("$defs", {})
    return found


def told(name: str, body: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(BODIES[name]).validate_python(body)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in raised.value.errors()]
    return validation_error(errors).body.error.message


def test_many_unknown_fields_are_counted_and_a_long_one_is_cut() -> None:
    given = {"model": "m", "prompt": "x"}
    many = given | {f"k{number}": 0 for number in range(MANY)}
    assert f"there are {MANY + 2} fields; at most {MAX_FIELDS} are possible" in told("completions", many)
    assert told("completions", given | {"k" * MANY: 0}) == (
        f"{'k' * 64}... ({MANY} characters) is not supported by this service; leave it out"
    )
    message = {"role": "user", "content": "x"} | {f"k{number}": 0 for number in range(MANY)}
    assert told("chat", {"model": "m", "messages": [message]}).startswith(f"messages[0]: there are {MANY + 2} fields")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", 5, "b"], "prompt[1]: Input should be a valid string"),
        ([1, "a"], "prompt[1]: Input should be a valid integer"),
        ([0.5], "prompt[0]: Input should be a valid integer"),
        ([True], "prompt[0]: Input should be a valid integer"),
        ([[1], [2, "a"]], "prompt[1][1]: Input should be a valid integer"),
        ([[1], 2], "prompt[1]: Input should be a valid list"),
        ([], "prompt: List should have at least 1 item after validation, not 0"),
        (5, "prompt: Input should be a text, a list of texts, token ids or lists of them"),
        ({"a": 1}, "prompt: Input should be a text, a list of texts, token ids or lists of them"),
        ([2**31], "prompt[0]: Input should be less than 2147483648"),
    ],
    ids=repr,
)
def test_the_first_element_that_is_wrong_is_named(given: Any, said: str) -> None:
    assert told("completions", {"model": "m", "prompt": given}) == said
