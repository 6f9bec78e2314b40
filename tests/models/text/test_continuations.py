"""Labels' tokens behind a prompt, found behind a short end of it, are those behind all of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from models.errors import RequestError
from models.text.cuts import Cuts
from models.text.tokenizer import Tokenizer
from tests.helpers.matrix import first_of_each
from tests.helpers.models.tiny_tokenizers import KINDS
from tests.helpers.models.token_lists import common_prefix
from tests.helpers.pipelines.making import word_tokenizer

PIECES = [
    "a",
    "hello",
    " ",
    "  ",
    "\n",
    "\n\n",
    ".",
    "日本",
    "é",
    "\u0301",
    "😀",
    "x1",
    "_",
    "-",
    "'s",
    "▁",
    "7",
    "[end]",
]
SPECIAL = ["<|im_end|>", "<think>", "</s>", "<s>", "<mask>", "<eot>", "<|end|>", "[SEP]", "<unk>", "\ufdd0", "\ufdd1"]
text = st.lists(st.sampled_from(PIECES + SPECIAL) | st.text(max_size=3), min_size=1, max_size=6).map("".join)
labels_of = st.lists(text, min_size=1, max_size=6)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEMPLATES = {
    "plain": None,
    "inst": "{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}",
    "words": "{% for m in messages %}{{ m.role }}: {{ m.content }}\nassistant:{% endfor %}",
    "ends with a special token": "{% for m in messages %}</s>{{ m.content }}<s>{% endfor %}",
    "ends with blanks": "{% for m in messages %}{{ m.content }}<|im_end|> \n {% endfor %}",
    "trims": "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
}


def one_by_one(tokenizer: Tokenizer, prompt: str, labels: list[str]) -> tuple[list[int], list[list[int]]]:
    """The tokens with which the prompt and all labels behind it begin, and the rest of each label: a call for each."""
    wholes = [tokenizer.encode(prompt + label, add_special_tokens=False) for label in labels]
    common = common_prefix([tokenizer.encode(prompt, add_special_tokens=False), *wholes])
    return common, [whole[len(common) :] for whole in wholes]


def prompt_of(tokenizer: Tokenizer) -> str:
    asked = "A text.\n\nQuestion: Which label?\nAnswer with one of: a, b."
    if tokenizer.chat_template is None:
        return f"{asked}\nAnswer:"
    return tokenizer.render_chat(tokenizer.chat_content().fit([{"role": "user", "content": asked}]))


CASES = first_of_each(
    (f"{kind}, {name}" for kind in KINDS for name in TEMPLATES), kind=lambda case: case.split(", ")[0]
)


@pytest.fixture(params=CASES, scope="module")
def tokenizer(
    request: pytest.FixtureRequest,
    tokenizer_folder: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Tokenizer:
    kind, _, name = request.param.partition(", ")
    folder = tmp_path_factory.mktemp("continued")
    for file in tokenizer_folder(kind).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATES[name]}))
    return Tokenizer.from_pretrained(folder)


@MANY
@given(labels=labels_of, is_protected=st.booleans())
def test_labels_have_the_tokens_that_each_adds_to_the_whole_prompt(
    tokenizer: Tokenizer, labels: list[str], is_protected: bool
) -> None:
    assume(not any("\ud800" <= character <= "\udfff" for label in labels for character in label))
    assume(not is_protected or "[end]" not in "".join(labels).casefold())
    shown = list(map(tokenizer.protect, labels)) if is_protected else labels
    prompt = prompt_of(tokenizer)
    found = tokenizer.encode_continued(prompt, shown)
    common, added = one_by_one(tokenizer, prompt, shown)
    whole = tokenizer.encode(prompt, add_special_tokens=False)
    assert whole[: len(whole) - found.num_dropped] == common
    assert list(map(list, found.added)) == added


MANY_LABELS = [f"label number {number}" for number in range(1024)]


@pytest.mark.parametrize("kind", KINDS)
def test_many_labels_take_characters_in_proportion(kind: str, tokenizer_folder: Callable[[str], Path]) -> None:
    """Each of 1,024 behind the whole prompt would be 23 million characters."""
    tokenizer = Tokenizer.from_pretrained(tokenizer_folder(kind))
    found = tokenizer.encode_continued(prompt_of(tokenizer), MANY_LABELS, max_chars=1 << 17)
    assert len(found.added) == len(MANY_LABELS)


def test_a_tokenizer_whose_words_may_begin_anywhere_reads_the_whole_prompt_and_no_more_than_it_may(
    tmp_path: Path,
) -> None:
    tokenizer = changed(
        word_tokenizer(tmp_path), tmp_path, "pre_tokenizer", {"type": "CharDelimiterSplit", "delimiter": "_"}
    )
    labels, prompt = ["w1_w2", "w3"], prompt_of(tokenizer)
    found = tokenizer.encode_continued(prompt, labels)
    assert found.tail == prompt
    assert list(map(list, found.added)) == one_by_one(tokenizer, prompt, labels)[1]
    with pytest.raises(RequestError, match="has to read the prompt again with each; at most 100 are possible"):
        tokenizer.encode_continued(prompt, labels, max_chars=100)


def changed(tokenizer: Tokenizer, folder: Path, part: str, value: Any) -> Tokenizer:
    """The tokenizer of a folder with another part of its pipeline."""
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), part: value}))
    return Tokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": ".+(?=x)"}, "behavior": "Isolated", "invert": False}),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "use_regex": False}]}),
        ("normalizer", {"type": "Replace", "pattern": {"String": "\n"}, "content": "x"}),
        ("normalizer", {"type": "Strip", "strip_left": True, "strip_right": True}),
    ],
)
def test_no_cut_is_known_where_a_tokenizer_could_look_back(tmp_path: Path, part: str, value: Any) -> None:
    defaults = {"add_prefix_space": False, "trim_offsets": True}
    for step in value.get("pretokenizers", []):
        step |= defaults
    word_tokenizer(tmp_path)
    changed(Tokenizer.from_pretrained(tmp_path), tmp_path, part, value)
    cuts = Cuts.of(tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")))
    assert cuts.last("a text\nAnswer: b") is None


def test_a_token_that_holds_a_line_break_takes_the_cuts_at_lines(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert Cuts.of(backend).last("a text\nAnswer:\n b") == len("a text")
    backend.add_tokens(["\nAnswer"])
    assert Cuts.of(backend).last("a text\nAnswer: b") is None
