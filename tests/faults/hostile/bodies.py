"""Bodies of requests that are small, or as large as a body may be, and ask for work or memory without end.

Each is a function that makes the bytes, so that a list of them holds no megabytes.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from actors.http.limits import RequestLimits
from tests.faults.hostile.site import ANSWERS, HEAD, LONG, TEXT

MAX_BYTES = 8 << 20
"""The most that a service takes."""

Body = Callable[[], bytes]


def filled(before: str, item: str, after: str, *, num_bytes: int = MAX_BYTES) -> Body:
    """`before`, then `item` as often as there is room for, with commas between, then `after`."""

    def make() -> bytes:
        room = num_bytes - len(before) - len(after)
        return (before + ",".join([item] * (room // (len(item) + 1))) + after).encode()

    return make


def counted(before: str, item: str, after: str, *, count: int) -> Body:
    """`before`, then `item` so many times with commas between, then `after`."""

    def make() -> bytes:
        return (before + ",".join([item] * count) + after).encode()

    return make


def repeated(before: str, text: str, after: str, *, num_bytes: int = MAX_BYTES) -> Body:
    """The same without commas."""

    def make() -> bytes:
        room = num_bytes - len(before) - len(after)
        return (before + text * (room // len(text)) + after).encode()

    return make


def numbered_keys(before: str, after: str) -> Body:
    """Keys that all differ."""

    def make() -> bytes:
        keys = ",".join(f'"k{number}":1' for number in range((MAX_BYTES - 200) // 14))
        return (before + keys + after).encode()

    return make


def of_json(**fields: Any) -> Body:
    """A body of these fields."""
    return lambda: json.dumps(fields).encode()


def _prompt(model: str) -> str:
    return f'{{"model":"{model}","max_tokens":1,"prompt":'


def _chat(model: str) -> str:
    return f'{{"model":"{model}","max_tokens":1,"messages":'


_USER = '{"role":"user","content":"a"}'

WORK: Mapping[str, tuple[str, Body]] = {
    "1,024 short labels": (
        "/v1/classify",
        of_json(model=LONG, input="a", labels=[f"label {n}" for n in range(1024)]),
    ),
    "1,024 labels of 8 kB": (
        "/v1/classify",
        of_json(model=LONG, input="a", labels=[f"{n} {'label ' * 1300}" for n in range(1024)]),
    ),
    "1,000 inputs to 1,000 labels": (
        "/v1/classify",
        of_json(model=LONG, input=[str(n) for n in range(1000)], labels=[str(n) for n in range(1000)]),
    ),
    "2,000 prompts that end differently, to 16 labels": (
        "/v1/classify",
        of_json(model=LONG, prompt=[f"{n} {n % 7}x" for n in range(2000)], labels=[str(n) for n in range(16)]),
    ),
    "64 examples before 1,000 inputs": (
        "/v1/classify",
        of_json(
            model=LONG,
            input=[str(n) for n in range(1000)],
            labels=["a", "b"],
            examples=[{"text": "why not", "label": "a"}] * 64,
            calibrate="prior",
        ),
    ),
    "a question of 20 kB and 256 inputs": (
        "/v1/extract",
        of_json(model=ANSWERS, question="why not " * 2500, input=["because"] * 256),
    ),
    "a question of 20 kB and 2,048 inputs": (
        "/v1/extract",
        of_json(model=ANSWERS, question="why not " * 2500, input=["because"] * 2048),
    ),
    "an input of 8 MB to extract": (
        "/v1/extract",
        repeated(f'{{"model":"{ANSWERS}","question":"what","input":"', "a b ", '"}'),
    ),
    "2,048 inputs of 4 kB to classify": ("/v1/classify", of_json(model=HEAD, input=["word " * 800] * 2048)),
    "2,048 inputs of 4 kB to embed": ("/v1/embeddings", of_json(model=LONG, input=["word " * 800] * 2048)),
    "a prompt of 8 MB": ("/v1/completions", repeated(_prompt(LONG) + '"', "a b ", '"}')),
    "a prompt of 8 MB without a blank": ("/v1/completions", repeated(_prompt(LONG) + '"', "a", '"}')),
    "a text of 8 MB to tokenize": ("/tokenize", repeated(f'{{"model":"{LONG}","prompt":"', "a b ", '"}')),
    "a message of 8 MB": (
        "/v1/chat/completions",
        repeated(_chat(LONG) + '[{"role":"user","content":"', "a b ", '"}]}'),
    ),
}
"""A small request that is much work, or a large one that is more: what it is, the path, and the body."""

SHAPES: Mapping[str, tuple[str, Body]] = {
    "1.2 MB of floats as prompt": ("/v1/completions", filled(_prompt(TEXT) + "[", "0.5", "]}", num_bytes=1_200_000)),
    "8 MB of floats as prompt": ("/v1/completions", filled(_prompt(TEXT) + "[", "0.5", "]}")),
    "8 MB of floats as input": ("/v1/embeddings", filled(f'{{"model":"{TEXT}","input":[', "0.5", "]}")),
    "8 MB of token ids": ("/v1/completions", filled(_prompt(TEXT) + "[", "1", "]}")),
    "8 MB of token ids to detokenize": ("/detokenize", filled(f'{{"model":"{TEXT}","tokens":[', "1", "]}")),
    "8 MB of wrong token ids": ("/detokenize", filled(f'{{"model":"{TEXT}","tokens":[', '"a"', "]}")),
    "8 MB of lists of one token": ("/v1/completions", filled(_prompt(TEXT) + "[", "[1]", "]}")),
    "8 MB of empty lists": ("/v1/completions", filled(_prompt(TEXT) + "[", "[]", "]}")),
    "8 MB of empty texts": ("/v1/completions", filled(_prompt(TEXT) + "[", '""', "]}")),
    "8 MB of objects": ("/v1/completions", filled(_prompt(TEXT) + "[", "{}", "]}")),
    "8 MB of texts and numbers": ("/v1/completions", filled(_prompt(TEXT) + "[", '"a",1', "]}")),
    "8 MB of brackets": ("/v1/completions", repeated(_prompt(TEXT), "[", "}")),
    "8 MB of nested objects": ("/v1/completions", repeated(_prompt(TEXT), '{"a":', "}")),
    "8 MB of digits": ("/v1/completions", repeated(_prompt(TEXT), "1", "}")),
    "8 MB of digits as seed": ("/v1/completions", repeated(_prompt(TEXT) + '"a","seed":', "1", "}")),
    "8 MB of escapes": ("/v1/completions", repeated(_prompt(TEXT) + '"', "\\u0001", '"}')),
    "8 MB of unknown keys": ("/v1/completions", numbered_keys(_prompt(TEXT) + '"a",', "}")),
    "8 MB of one unknown key": ("/v1/completions", filled(_prompt(TEXT) + '"a",', '"a":1', "}")),
    "an unknown key of 8 MB": ("/v1/completions", repeated(_prompt(TEXT) + '"a","', "k", '":1}')),
    "a model's name of 8 MB": ("/v1/completions", repeated('{"prompt":"a","model":"', "m", '"}')),
    "8 MB of stops": ("/v1/completions", filled(_prompt(TEXT) + '"a","stop":[', '"a"', "]}")),
    "8 MB of wrong stops": ("/v1/completions", filled(_prompt(TEXT) + '"a","stop":[', "1", "]}")),
    "8 MB of stop tokens": ("/v1/completions", filled(_prompt(TEXT) + '"a","stop_token_ids":[', "1", "]}")),
    "8 MB of messages": ("/v1/chat/completions", filled(_chat(TEXT) + "[", _USER, "]}")),
    "8 MB of numbers as messages": ("/v1/chat/completions", filled(_chat(TEXT) + "[", "1", "]}")),
    "8 MB of objects as messages": ("/v1/chat/completions", filled(_chat(TEXT) + "[", "{}", "]}")),
    "8 MB of parts of a message": (
        "/v1/chat/completions",
        filled(_chat(TEXT) + '[{"role":"user","content":[', '{"type":"text","text":"a"}', "]}]}"),
    ),
    "8 MB of numbers as parts": (
        "/v1/chat/completions",
        filled(_chat(TEXT) + '[{"role":"user","content":[', "1", "]}]}"),
    ),
    "8 MB of template variables": (
        "/v1/chat/completions",
        numbered_keys(_chat(TEXT) + f'[{_USER}],"chat_template_kwargs":{{', "}}"),
    ),
    "8 MB of tools": ("/v1/chat/completions", filled(_chat(TEXT) + f'[{_USER}],"tools":[', "{}", "]}")),
    "8 MB of numbers as labels": ("/v1/classify", filled(f'{{"model":"{LONG}","input":"a","labels":[', "1", "]}")),
    "8 MB of numbers as a body": ("/v1/completions", filled("[", "1", "]")),
    "8 MB that is no JSON": ("/v1/completions", repeated("", "\x00", "")),
}
"""A body that fits no schema, or only just: what it is, the path, and the body."""

_MANY, _PARTS = RequestLimits().max_values - 64, RequestLimits().max_parts - 64
"""Nearly as many numbers, and as many texts, lists and objects, as a body may hold."""

BOUNDS: Mapping[str, tuple[str, Body]] = {
    "as many floats as prompt as there may be": (
        "/v1/completions",
        counted(_prompt(TEXT) + "[", "0.5", "]}", count=_MANY),
    ),
    "as many wrong token ids as there may be": (
        "/v1/completions",
        counted(_prompt(TEXT) + "[", "999999", "]}", count=RequestLimits().max_request_tokens),
    ),
    "as many token ids as there may be": (
        "/v1/completions",
        counted(_prompt(TEXT) + "[", "1", "]}", count=RequestLimits().max_request_tokens),
    ),
    "as many token ids to detokenize as there may be": (
        "/detokenize",
        counted(f'{{"model":"{TEXT}","tokens":[', "1", "]}", count=RequestLimits().max_request_tokens),
    ),
    "as many texts as prompt as there may be": (
        "/v1/completions",
        counted(_prompt(TEXT) + "[", '"a"', "]}", count=_PARTS),
    ),
    "as many lists as prompt as there may be": (
        "/v1/completions",
        counted(_prompt(TEXT) + "[", "[1]", "]}", count=_PARTS),
    ),
    "as many objects as messages as there may be": (
        "/v1/chat/completions",
        counted(_chat(TEXT) + "[", "{}", "]}", count=_PARTS),
    ),
    "as many numbers as messages as there may be": (
        "/v1/chat/completions",
        counted(_chat(TEXT) + "[", "1", "]}", count=_MANY),
    ),
    "as many lists as template variables as there may be": (
        "/v1/chat/completions",
        of_json(model=TEXT, messages=[], chat_template_kwargs={f"k{n}": [] for n in range(_PARTS // 2)}),
    ),
    "4,096 messages": ("/v1/chat/completions", counted(_chat(LONG) + "[", _USER, "]}", count=4096)),
    "2,048 inputs of one token to embed": (
        "/v1/embeddings",
        counted(f'{{"model":"{LONG}","input":[', "[1]", "]}", count=2048),
    ),
}
"""A body that only just is within the bounds of bodies: what it is, the path, and the body."""
