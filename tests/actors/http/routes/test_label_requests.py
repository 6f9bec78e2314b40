"""What a classify request may say of labels: keys that do not go together are refused by name, and a prior is found once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from actors.http.limits import RequestLimits
from actors.online.local import LocalModel
from actors.online.model import FloatArray
from models import Scorer
from models.tasks.calibration import CONTENT_FREE
from models.tasks.label_tokens import LabelIds
from models.text.tokenizer import Tokenizer
from tests.helpers.actors.serving import served, serving
from tests.helpers.close import close_to

LABELS = ["billing", "shipping"]
ASKED: dict[str, Any] = {"model": "causal", "labels": LABELS}
INPUT: dict[str, Any] = {**ASKED, "input": ["Where is it?", "Hello"]}
MAX_TOKENS = 2000


@pytest.fixture
def calls(causal: LocalModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call of the model had."""
    found: list[int] = []
    score_labels = causal.score_labels

    async def counted(token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> FloatArray:
        found.append(len(token_ids))
        return await score_labels(token_ids, labels)

    monkeypatch.setattr(causal, "score_labels", counted)
    return found


@pytest.fixture(scope="module")
def client(causal_path: Path, causal: LocalModel) -> Iterator[httpx.Client]:
    limits = RequestLimits(max_request_tokens=MAX_TOKENS)
    with (
        serving([served("causal", causal_path, causal)], limits=limits) as address,
        httpx.Client(base_url=address, timeout=60) as found,
    ):
        yield found


def ask(client: httpx.Client, **body: Any) -> Any:
    answer = client.post("/v1/classify", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


EXAMPLE = {"text": "x", "label": "billing"}
CHAT = {"messages": [{"role": "user", "content": "Which?"}]}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "nothing is given to classify; give one of input, prompt, messages"),
    ({"input": "x", "prompt": "x"}, "prompt", "input and prompt are given; give one of input, prompt, messages"),
    ({"prompt": "x", **CHAT}, "messages", "prompt and messages are given"),
    ({"prompt": ["x ", ""]}, "prompt", "prompt[1] is empty"),
    ({"prompt": "x", "question": "q"}, "question", "question goes with input, not with prompt: write it into prompt"),
    ({"prompt": "x", "examples": [EXAMPLE]}, "examples", "write it into prompt"),
    ({**CHAT, "examples": [EXAMPLE]}, "examples", "write it into messages"),
    ({**CHAT, "calibrate": "prior"}, "calibrate", "has no place for texts that say nothing"),
    ({"prompt": "x", "labels": {"a": "one", "b": "two"}}, "labels", "descriptions go with input"),
    ({"input": "x", "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs", "goes with messages"),
    ({**CHAT, "chat_template_kwargs": {"tools": 1}}, "chat_template_kwargs", "tools cannot be set"),
    ({"input": "x", "label_texts": {"other": "o"}}, "label_texts", "none of labels"),
    ({"input": "x", "examples": [EXAMPLE, {**EXAMPLE, "label": "no"}]}, "examples[1].label", "none of labels"),
    ({"input": "x", "examples": [EXAMPLE] * 65}, "examples", "at most 64 items"),
    ({"input": "x", "calibrate": "batch"}, "calibrate", "'none' or 'prior'"),
    ({"input": "x", "labels": {"a": "one", "b": ""}}, "labels.b", "at least 1 character"),
    ({"input": "x", "labels": {str(n): "x" for n in range(1025)}}, "labels", "at most 1024 are possible"),
    ({"input": "x", "label_texts": {"billing": "same", "shipping": "same"}}, "labels", "can tell from the others'"),
    ({"prompt": "x", "labels": ["a", "a"]}, "prompt", "a label can stand there only once"),
    ({"prompt": "x " * 300}, "prompt", "prompt[0] has"),
    (
        {"prompt": ["x"] * 33, "labels": [str(n) for n in range(1024)]},
        "prompt",
        "33 prompts to 1024 labels are 33792 pairs; at most 32768 are possible",
    ),
    ({"messages": [{"role": "user", "content": "x " * 300}]}, "messages", "messages has"),
    ({"prompt": ["x\n"] * 400, "labels": ["one two three", "x"]}, "prompt", "all of prompt with its labels has"),
    ({"input": ["x"] * 100, "labels": ["one two three", "x"]}, "input", "all of input with its"),
]


@pytest.mark.parametrize(("body", "param", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_does_not_go_together_is_refused_by_name(
    client: httpx.Client, body: dict[str, Any], param: str, said: str
) -> None:
    answer = client.post("/v1/classify", json={**ASKED, **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert said in error["message"]


def test_answers_say_only_what_is_asked_for(client: httpx.Client) -> None:
    plain = ask(client, **INPUT)
    assert plain.keys() == {"object", "model", "outcome", "data", "usage"}
    assert plain["data"][0].keys() == {"index", "label", "score", "scores", "labels"}
    nothing = ask(client, **INPUT, calibrate="none", label_mass=False, label_texts={})
    assert nothing == close_to(plain)
    more = ask(client, **INPUT, calibrate="prior", label_mass=True)
    assert more["calibrate"] == "prior"
    assert all(0 < one["label_mass"] <= 1 for one in more["data"])
    assert more["usage"] == plain["usage"]  # texts that say nothing are no inputs


def test_scores_are_those_without_the_mean_after_texts_that_say_nothing(
    client: httpx.Client, causal_path: Path
) -> None:
    """Zhao et al. 2021 in numbers: p(label | text) over the mean of p(label | nothing), scaled to sum to 1."""
    tokenizer, scorer = Tokenizer.from_pretrained(causal_path), Scorer.from_pretrained(causal_path, dtype="float32")

    def shares(texts: Sequence[str]) -> Any:
        prompts = [tokenizer.encode(f"Text: {text}\nCategory:") for text in texts]
        labels = [tokenizer.encode(f" {label}", add_special_tokens=False) for label in LABELS]
        found = np.exp(scorer.score_labels(prompts, labels).numpy().astype(np.float64))
        return found / found.sum(axis=1, keepdims=True)

    ratios = shares(INPUT["input"]) / shares(CONTENT_FREE).mean(axis=0)
    expected = ratios / ratios.sum(axis=1, keepdims=True)
    found = [list(one["scores"].values()) for one in ask(client, **INPUT, calibrate="prior")["data"]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("form", ["input", "prompt"])
def test_a_label_that_spells_a_special_token_is_scored_as_text(
    client: httpx.Client, causal_path: Path, form: str
) -> None:
    tokenizer, scorer = Tokenizer.from_pretrained(causal_path), Scorer.from_pretrained(causal_path, dtype="float32")
    labels = [" <|im_end|>", " <|im_end|> or not"]
    label_ids = [encoding.ids for encoding in tokenizer.encode_with_offsets(labels)]  # special strings stay text
    prompt = "Text: Hello\nCategory:"
    stop = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]  # one begins the other
    found = scorer.score_labels([tokenizer.encode(prompt)], [[*ids, *stop] for ids in label_ids]).double()
    body = {"input": "Hello"} if form == "input" else {"prompt": prompt}
    names = [label.strip() for label in labels]
    texts = dict(zip(names, labels, strict=True))
    scores = ask(client, model="causal", labels=names, label_texts=texts, **body)["data"][0]["scores"]
    np.testing.assert_allclose(list(scores.values()), found.softmax(dim=1)[0].numpy(), atol=1e-5)


def test_a_prior_is_found_once_for_all_that_ask_the_same(client: httpx.Client, calls: list[int]) -> None:
    form = {**ASKED, "calibrate": "prior", "question": "Which of these?"}
    first = ask(client, **form, input="One.")
    assert calls == [len(CONTENT_FREE), 1]
    assert ask(client, **form, input=["One.", "Two."])["data"][0] == close_to(first["data"][0])
    assert calls[2:] == [2]
    ask(client, **{**form, "labels": LABELS[::-1]}, input="One.")
    assert calls[3:] == [len(CONTENT_FREE), 1]
