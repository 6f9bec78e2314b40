"""The service as the `openai` Python client sees it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from actors.http.limits import RequestLimits
from actors.online.local import LocalModel
from models import Engine, Output, SamplingParams, Scorer
from models.engine.rules.table import PARAMETERS
from tests.actors.conftest import MAX_MODEL_LEN
from tests.helpers.actors import plain_http
from tests.helpers.actors.serving import served, serving

MESSAGES: Any = [{"role": "system", "content": "Hello"}, {"role": "user", "content": "how are you today?"}]
PROMPTS = ("Hello world", "Zürich 12345", "日本語")
GREEDY = SamplingParams(max_tokens=12, temperature=0.0)
VOCAB_SIZE = 512


@pytest.fixture(scope="module")
def address(causal_path: Path, causal: LocalModel) -> Iterator[str]:
    with serving([served("tiny", causal_path, causal)], limits=RequestLimits(max_n=4, max_inputs=8)) as found:
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def engine(causal_path: Path) -> Iterator[Engine]:
    with Engine.from_pretrained(causal_path, dtype="float32", max_num_seqs=8, block_size=4) as found:
        yield found


def chat_prompt(engine: Engine, messages: Any = MESSAGES) -> list[int]:
    assert engine.tokenizer is not None
    return engine.tokenizer.encode(engine.tokenizer.render_chat(messages), add_special_tokens=False)


def generated(engine: Engine, prompts: Sequence[str | list[int]], params: SamplingParams = GREEDY) -> list[Output]:
    return engine.generate(prompts, params)


def refusal(call: Any, **arguments: Any) -> dict[str, Any]:
    """The error body of a 400."""
    with pytest.raises(openai.BadRequestError) as raised:
        call(**{"model": "tiny", **arguments})
    assert isinstance(raised.value.body, dict)
    return raised.value.body


def test_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_greedy_chat_is_what_the_engine_generates(client: openai.OpenAI, engine: Engine) -> None:
    (expected,) = generated(engine, [chat_prompt(engine)])
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=12, temperature=0)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == expected.num_prompt_tokens
    assert answer.usage.completion_tokens == len(expected.token_ids)


def test_a_streamed_chat_is_the_whole_one_in_parts(client: openai.OpenAI, engine: Engine) -> None:
    (expected,) = generated(engine, [chat_prompt(engine)], replace(GREEDY, logprobs=2))
    stream = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_completion_tokens=12,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
    assert chunks[-1].choices[0].finish_reason == expected.finish_reason
    logprobs = [
        entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content or ()
    ]
    assert expected.logprobs is not None
    assert [entry.logprob for entry in logprobs] == pytest.approx(
        [entry.logprob for entry in expected.logprobs], abs=1e-5
    )
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 12


def test_greedy_completions_of_many_prompts_are_what_the_engine_generates(
    client: openai.OpenAI, engine: Engine
) -> None:
    expected = [output.text for output in generated(engine, PROMPTS)]
    whole = client.completions.create(model="tiny", prompt=list(PROMPTS), max_tokens=12, temperature=0)
    assert [choice.text for choice in whole.choices] == expected
    texts = [""] * len(PROMPTS)
    for chunk in client.completions.create(
        model="tiny", prompt=list(PROMPTS), max_tokens=12, temperature=0, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == expected


def test_token_ids_are_prompts_too(client: openai.OpenAI, engine: Engine) -> None:
    ids = [[5, 6, 7], [8, 9]]
    expected = [output.text for output in generated(engine, ids)]
    several = client.completions.create(model="tiny", prompt=ids, max_tokens=12, temperature=0)
    assert [choice.text for choice in several.choices] == expected
    alone = client.completions.create(model="tiny", prompt=ids[0], max_tokens=12, temperature=0)
    assert alone.choices[0].text == expected[0]


def test_stop_strings_end_a_text_before_them(client: openai.OpenAI, engine: Engine) -> None:
    (free,) = generated(engine, [PROMPTS[0]])
    stop = free.text[3:5]
    answer = client.completions.create(model="tiny", prompt=PROMPTS[0], max_tokens=12, temperature=0, stop=[stop, "\0"])
    assert answer.choices[0].text == free.text[: free.text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_answers_to_one_prompt_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def texts(n: int) -> list[str]:
        answer = client.completions.create(model="tiny", prompt="Hello", max_tokens=12, n=n, seed=7, top_p=0.9)
        return [choice.text for choice in answer.choices]

    first = texts(3)
    assert len(set(first)) == 3
    assert texts(3) == first
    assert texts(1) == first[:1]


def test_the_answers_to_one_prompt_count_it_once(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=[5, 6, 7], max_tokens=4, n=2)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 8)


def test_text_that_spells_a_special_token_stays_text(client: openai.OpenAI, address: str) -> None:
    def ids(**body: Any) -> list[int]:
        response = plain_http.post(f"{address}/tokenize", json={"model": "tiny", **body})
        found: list[int] = response.json()["tokens"]
        return found

    def special(text: str) -> list[int]:
        return [token for token in ids(prompt=text, add_special_tokens=False) if token in named]

    named = {int(token) for token in _special_ids(address)}
    assert named
    assert special("a <|im_end|> b") == []
    plain = ids(messages=[{"role": "user", "content": "x"}])
    spoken = ids(messages=[{"role": "user", "content": "x<|im_end|>"}])
    assert sum(token in named for token in spoken) == sum(token in named for token in plain)


def _special_ids(address: str) -> list[int]:
    """The ids that the chat template alone can make."""
    messages = [{"role": "user", "content": "x"}]
    body = {"model": "tiny", "messages": messages}
    tokens = plain_http.post(f"{address}/tokenize", json=body).json()["tokens"]
    return [
        token
        for token in tokens
        if plain_http.post(f"{address}/detokenize", json={"model": "tiny", "tokens": [token]}).json()["prompt"]
        in ("<|im_start|>", "<|im_end|>")
    ]


def test_tokens_become_the_text_again(address: str) -> None:
    body = {"model": "tiny", "prompt": "Zürich 日本"}
    found = plain_http.post(f"{address}/tokenize", json=body).json()
    assert found["count"] == len(found["tokens"])
    assert found["max_model_len"] == MAX_MODEL_LEN
    back = plain_http.post(f"{address}/detokenize", json={"model": "tiny", "tokens": found["tokens"]}).json()
    assert back["prompt"] == "Zürich 日本"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_are_those_of_the_scorer(client: openai.OpenAI, causal_path: Path, encoding: Any) -> None:
    scorer = Scorer.from_pretrained(causal_path, dtype="float32")
    assert scorer.tokenizer is not None
    expected = scorer.embed([scorer.tokenizer.encode(text) for text in PROMPTS]).numpy()
    answer = client.embeddings.create(model="tiny", input=list(PROMPTS), encoding_format=encoding)
    found = [
        np.frombuffer(__import__("base64").b64decode(item.embedding), "<f4")
        if isinstance(item.embedding, str)
        else item.embedding
        for item in answer.data
    ]
    assert np.allclose(np.array(found), expected, atol=1e-6)


def test_an_unknown_model_is_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="other", messages=MESSAGES)
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"


UNSUPPORTED: list[tuple[str, Any]] = [
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("functions", [{"name": "f"}]),
    ("response_format", {"type": "json_object"}),
    ("store", True),
    ("modalities", ["audio"]),
    ("reasoning_effort", "low"),
    ("something_new", 1),
]


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_its_name(client: openai.OpenAI, name: str, value: Any) -> None:
    body = refusal(client.chat.completions.create, messages=MESSAGES, extra_body={name: value})
    assert body["param"] is not None
    assert body["param"].startswith(name)
    assert name in body["message"]


@pytest.mark.parametrize(("name", "value"), [("suffix", "x"), ("best_of", 3)])
def test_a_completion_refuses_what_it_does_not_support(client: openai.OpenAI, name: str, value: Any) -> None:
    assert refusal(client.completions.create, prompt="x", extra_body={name: value})["param"].startswith(name)


def test_values_that_ask_for_nothing_are_taken(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="tiny",
        messages=[*MESSAGES, {"role": "assistant", "content": "x", "refusal": None}, MESSAGES[1]],
        max_tokens=1,
        user="somebody",
        store=False,
        presence_penalty=0,
        frequency_penalty=0.0,
        logit_bias={},
        extra_body=dict.fromkeys(PARAMETERS) | {"repetition_penalty": 1, "bad_words": [], "no_repeat_ngram_size": 0},
        tools=[],
        response_format={"type": "text"},
    )


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("temperature", {"temperature": -1}),
        ("top_p", {"top_p": 0}),
        ("n", {"n": 0}),
        ("n", {"n": 5}),
        ("seed", {"seed": -1}),
        ("max_tokens", {"max_tokens": 0}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"role": "tool", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
        ("stream_options", {"extra_body": {"stream_options": {"include_usage": True}}}),
        ("min_tokens", {"max_tokens": 1, "extra_body": {"min_tokens": 2}}),
        ("presence_penalty", {"presence_penalty": 2.1}),
        ("frequency_penalty", {"frequency_penalty": -2.1}),
        ("presence_penalty", {"extra_body": {"presence_penalty": "1"}}),
        ("logit_bias", {"logit_bias": {"5": 101}}),
        ("logit_bias", {"logit_bias": {"-5": 1}}),
        ("logit_bias", {"logit_bias": {"five": 1}}),
        ("logit_bias", {"extra_body": {"logit_bias": [[5, 1]]}}),
        ("logit_bias", {"logit_bias": {str(VOCAB_SIZE): 1}}),
        ("logit_bias", {"logit_bias": {str(token): 1 for token in range(1025)}}),
        ("repetition_penalty", {"extra_body": {"repetition_penalty": 0}}),
        ("no_repeat_ngram_size", {"extra_body": {"no_repeat_ngram_size": 1.5}}),
        ("allowed_token_ids", {"extra_body": {"allowed_token_ids": []}}),
        ("allowed_token_ids", {"extra_body": {"allowed_token_ids": [5, VOCAB_SIZE]}}),
        ("allowed_token_ids", {"extra_body": {"allowed_token_ids": [5] * 1025}}),
        ("stop_token_ids", {"extra_body": {"stop_token_ids": [VOCAB_SIZE]}}),
        ("bad_words", {"extra_body": {"bad_words": "x"}}),
        ("bad_words", {"extra_body": {"bad_words": ["x", ""]}}),
        ("bad_words", {"extra_body": {"bad_words": ["x" * 257]}}),
        ("bad_words", {"extra_body": {"bad_words": ["x"] * 1025}}),
        ("bad_words", {"extra_body": {"bad_words": [f"{number}{'é' * 250}" for number in range(60)]}}),
        ("chat_template_kwargs", {"extra_body": {"chat_template_kwargs": {"messages": "x"}}}),
        ("max_completion_tokens", {"max_tokens": 1, "max_completion_tokens": 2}),
    ],
)
def test_a_bad_body_is_400_and_names_the_field(client: openai.OpenAI, field: str, arguments: dict[str, Any]) -> None:
    body = refusal(client.chat.completions.create, **{"messages": MESSAGES, **arguments})
    assert body["param"] == field
    assert field.rpartition(".")[2] in body["message"]


RULES: dict[str, dict[str, Any]] = {
    "presence_penalty": {"presence_penalty": 2.0},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "logit_bias": {"logit_bias": {65: 100.0}},
    "repetition_penalty": {"repetition_penalty": 1.8},
    "min_tokens": {"min_tokens": 4, "stop_token_ids": [65], "logit_bias": {65: 50.0}},
    "allowed_token_ids": {"allowed_token_ids": [70, 71, 72]},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "all": {
        "presence_penalty": 0.5, "frequency_penalty": -0.5, "logit_bias": {65: 3.0, 66: 3.0}, "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2, "allowed_token_ids": list(range(60, 300)), "bad_words": ["a", "it is"],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rules_are_those_of_the_engine(client: openai.OpenAI, engine: Engine, name: str) -> None:
    """Which `tests/models/engine/rules` holds to transformers; a bias's tokens are text, since they are keys of JSON."""
    asked = RULES[name]
    params = GREEDY.changed(**{key: tuple(value) if isinstance(value, list) else value for key, value in asked.items()})
    (chat,), (text,) = generated(engine, [chat_prompt(engine)], params), generated(engine, ["Hello world"], params)
    (free,) = generated(engine, ["Hello world"])
    assert text.token_ids != free.token_ids
    body = asked | {"logit_bias": {str(token): value for token, value in asked.get("logit_bias", {}).items()}}
    options: dict[str, Any] = {"model": "tiny", "max_tokens": 12, "temperature": 0, "extra_body": body}
    answer = client.chat.completions.create(messages=MESSAGES, **options)
    assert answer.choices[0].message.content == chat.text
    assert answer.choices[0].finish_reason == chat.finish_reason
    assert client.completions.create(prompt="Hello world", **options).choices[0].text == text.text
    chunks = client.completions.create(prompt="Hello world", stream=True, **options)
    assert "".join(chunk.choices[0].text for chunk in chunks) == text.text


def test_openais_own_parameters_are_those_of_the_client(client: openai.OpenAI, engine: Engine) -> None:
    asked: Any = {"presence_penalty": 1.5, "frequency_penalty": 0.5}
    (expected,) = generated(engine, ["Hello world"], GREEDY.changed(logit_bias={65: 5.0}, **asked))
    answer = client.completions.create(
        model="tiny", prompt="Hello world", max_tokens=12, temperature=0, logit_bias={"65": 5}, **asked
    )
    assert answer.choices[0].text == expected.text


def test_bad_words_are_not_said(client: openai.OpenAI) -> None:
    """A text that spells a special token is that text."""
    options: Any = {"model": "tiny", "prompt": "Hello world", "max_tokens": 24, "temperature": 0, "logprobs": 0}

    def said(**extra: Any) -> list[str]:
        logprobs = client.completions.create(**options, extra_body=extra).choices[0].logprobs
        assert logprobs is not None
        return logprobs.tokens or []

    word = next(token for token in said() if token.isascii() and token.isalnum())
    assert word not in said(bad_words=[word, "<|im_end|>"])


def test_rules_stand_in_the_openapi_document_as_the_rules_declare_them(address: str) -> None:
    schemas = plain_http.get(f"{address}/openapi.json").json()["components"]["schemas"]
    for body in ("ChatBody", "CompletionBody"):
        for name, parameter in PARAMETERS.items():
            field = schemas[body]["properties"][name]
            assert parameter.kind.schema.items() <= field["anyOf"][0].items()
            assert field["description"] == parameter.purpose


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(client: openai.OpenAI) -> None:
    for stream in (False, True):
        body = refusal(client.completions.create, prompt=[5] * 600, max_tokens=10, stream=stream)
        assert "610" in body["message"]
        assert str(MAX_MODEL_LEN) in body["message"]
        assert body["code"] == "context_length_exceeded"
    body = refusal(client.embeddings.create, input=[[5] * 600])
    assert "600" in body["message"]
    assert str(MAX_MODEL_LEN) in body["message"]


def test_too_many_inputs_and_foreign_tokens_are_refused(client: openai.OpenAI) -> None:
    assert refusal(client.completions.create, prompt=["x"] * 9)["param"] == "prompt"
    assert refusal(client.completions.create, prompt=[10**6])["param"] == "prompt"
    assert refusal(client.embeddings.create, input=[[10**6]])["param"] == "input"


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"null", b"", b'{"model": "tiny", "prompt": "\\ud800"}', b'{"model": "tiny", "\\ud800": 1}', b"\xff"],
)
def test_what_is_no_body_is_400(address: str, content: bytes) -> None:
    response = plain_http.post(
        f"{address}/v1/completions", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_paths_and_methods_that_are_not_there_are_told_in_the_same_shape(address: str) -> None:
    assert plain_http.get(f"{address}/v1/nothing").json()["error"]["type"] == "not_found_error"
    response = plain_http.get(f"{address}/v1/completions")
    assert response.status_code == 405
    assert response.json()["error"]["message"]


def test_a_stream_ends_with_done_and_is_not_cached(address: str) -> None:
    body = {"model": "tiny", "prompt": "Hello", "max_tokens": 3, "stream": True}
    response = plain_http.post(f"{address}/v1/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.text.endswith("data: [DONE]\n\n")
