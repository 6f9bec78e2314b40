"""The tokenizer against transformers' own, on every kind of tokenizer."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import RequestError, TokenizerError
from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_tokenizers import KINDS, change_config

TEXTS = [
    "",
    " ",
    "Hello world",
    "  leading and trailing  ",
    "Hello <|im_end|> there <think> x </think>",
    "<|im_start|>user\nHi<|im_end|>\n",
    "a </s> b<s>c <mask>  d <|end|>  e [SEP] f [end] [END]",
    "日本語 emoji 😀👩‍👩‍👧‍👦 e\u0301 \u212b",
    "tabs\t\tand\r\nnewlines\n\n\n",
    "zero\u0000width\u200b\ufeff \ufffd \ufdd0 \U0010ffff",
    "word " * 300,
]
PIECES = [
    "<|im_start|>",
    "<|im_end|>",
    "<|im_",
    "end|>",
    "<think>",
    "</think>",
    "</s>",
    "<s>",
    "<",
    ">",
    "|",
    "/s>",
    "<|end|>",
]
MORE_PIECES = [
    "[SEP]",
    "[end]",
    "[END]",
    "<mask>",
    " ",
    "  ",
    "\n",
    "Hello",
    "ö",
    "日",
    "😀",
    "\ufdd0",
    "\ufdd1",
    "\ufdd2",
    "\u0301",
]
texts = st.lists(st.sampled_from(PIECES + MORE_PIECES) | st.text(max_size=4), max_size=12).map("".join)
FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@pytest.fixture(params=list(KINDS), scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(kind: str, tokenizer_folder: Callable[[str], Path]) -> Path:
    return tokenizer_folder(kind)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def qwen(tokenizer_folder: Callable[[str], Path]) -> Tokenizer:
    return Tokenizer.from_pretrained(tokenizer_folder("qwen"))


def is_valid(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(ours: Tokenizer, theirs: Any, text: str) -> None:
    assert ours.encode(text) == theirs(text).input_ids
    assert ours.encode(text, add_special_tokens=False) == theirs(text, add_special_tokens=False).input_ids


@FOLDER
@given(text=texts.filter(is_valid))
def test_ids_of_any_text_are_those_of_transformers(ours: Tokenizer, theirs: Any, text: str) -> None:
    if "\ufdd0\ufdd1" not in text and "\ufdd0\ufdd2" not in text:  # the two marks themselves
        assert ours.encode(text) == theirs(text).input_ids


def test_a_batch_gives_the_ids_of_its_texts(ours: Tokenizer) -> None:
    mixed = [*TEXTS, *map(ours.protect, TEXTS)]
    for batch in (TEXTS, mixed, []):
        for add in (True, False):
            expected = [ours.encode(text, add_special_tokens=add) for text in batch]
            assert ours.encode_batch(batch, add_special_tokens=add) == expected


@pytest.mark.parametrize("skip", [True, False])
def test_decoded_text_is_that_of_transformers(ours: Tokenizer, theirs: Any, skip: bool) -> None:
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


def test_named_tokens_are_those_of_transformers(ours: Tokenizer, theirs: Any) -> None:
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )
    assert ours.vocab_size == len(theirs)
    assert set(theirs.all_special_tokens) <= ours.special_tokens


def with_marks(offsets: list[tuple[int, int]], sequences: list[int | None], *texts: str) -> list[tuple[int, int]]:
    """The library's offsets, over the combining marks too that it aligns with nothing (see `test_folds`)."""
    widened = list(offsets)
    for place, (start, end) in enumerate(offsets):
        of = sequences[place]
        if of is None or start == end:
            continue
        covered = [each for each, sequence in zip(offsets, sequences, strict=True) if sequence == of]
        while end < len(texts[of]) and unicodedata.combining(texts[of][end]):
            if any(first <= end < after for first, after in covered):
                break
            end += 1
        widened[place] = (start, end)
    return widened


@pytest.mark.parametrize("text", [text for text in TEXTS if "<" not in text])
def test_offsets_of_one_text_are_those_of_transformers(ours: Tokenizer, theirs: Any, text: str) -> None:
    [encoding] = ours.encode_with_offsets([text])
    expected = theirs(text, return_offsets_mapping=True)
    assert encoding.ids == expected.input_ids
    assert encoding.offsets == with_marks(expected.offset_mapping, encoding.sequence_ids, text)
    assert encoding.sequence_ids == expected.sequence_ids(0)


def test_offsets_of_pairs_are_those_of_transformers(ours: Tokenizer, theirs: Any) -> None:
    plain = [text for text in TEXTS if "<" not in text and "[" not in text]
    questions, contexts = plain, plain[::-1]
    expected = theirs(questions, contexts, return_offsets_mapping=True)
    for row, encoding in enumerate(ours.encode_with_offsets(questions, contexts)):
        assert encoding.ids == expected.input_ids[row]
        texts = questions[row], contexts[row]
        assert encoding.offsets == with_marks(expected.offset_mapping[row], encoding.sequence_ids, *texts)
        assert encoding.sequence_ids == expected.sequence_ids(row)


def test_no_text_has_no_offsets(ours: Tokenizer) -> None:
    assert ours.encode_with_offsets([]) == []
    assert ours.encode_with_offsets([], []) == []


# Protected text.


@pytest.fixture(scope="module")
def plain(folder: Path, ours: Tokenizer) -> Any:
    """The same tokenizer, without special tokens."""
    from tokenizers import Tokenizer as Backend

    description = json.loads((folder / "tokenizer.json").read_text())
    description["added_tokens"] = [
        token for token in description["added_tokens"] if token["content"] not in ours.special_tokens
    ]
    if description["model"]["type"] == "Unigram":  # which finds special strings by itself
        for entry in description["model"]["vocab"][1:3]:
            entry[0] += "\ue000 unheard of"
    return Backend.from_str(json.dumps(description))


@FOLDER
@given(text=texts.filter(is_valid))
def test_protected_text_has_the_ids_of_plain_text(ours: Tokenizer, plain: Any, text: str) -> None:
    for add in (True, False):
        expected = plain.encode(text, add_special_tokens=add).ids
        assert ours.encode(ours.protect(text), add_special_tokens=add) == expected


@FOLDER
@given(text=texts.filter(is_valid))
def test_offsets_of_any_text_are_those_of_plain_text(ours: Tokenizer, plain: Any, text: str) -> None:
    expected = plain.encode(text)
    [encoding] = ours.encode_with_offsets([text])
    assert encoding.ids == expected.ids
    assert encoding.sequence_ids == expected.sequence_ids
    assert encoding.offsets == with_marks(expected.offsets, encoding.sequence_ids, text)


@FOLDER
@given(first=texts.filter(is_valid), second=texts.filter(is_valid))
def test_offsets_of_any_pair_are_those_of_plain_text(ours: Tokenizer, plain: Any, first: str, second: str) -> None:
    expected = plain.encode(first, second)
    [encoding] = ours.encode_with_offsets([first], [second])
    assert encoding.ids == expected.ids
    assert encoding.sequence_ids == expected.sequence_ids
    assert encoding.offsets == with_marks(expected.offsets, encoding.sequence_ids, first, second)


@FOLDER
@given(text=st.text().filter(is_valid) | texts.filter(is_valid))
def test_protected_text_comes_back_whole(tokenizer_folder: Callable[[str], Path], qwen: Tokenizer, text: str) -> None:
    import unicodedata

    text = unicodedata.normalize("NFC", text)
    ids = qwen.encode(qwen.protect(text))
    assert qwen.decode(ids, skip_special_tokens=False) == text
    assert qwen.decode(ids) == text


@FOLDER
@given(before=texts.filter(is_valid), after=texts.filter(is_valid))
def test_the_template_keeps_its_special_tokens_beside_protected_text(qwen: Tokenizer, before: str, after: str) -> None:
    text = f"<|im_start|>{qwen.protect(before)}<|im_end|>{qwen.protect(after)}<think>"
    by_name = {name: qwen.encode(name)[0] for name in qwen.special_tokens}
    expected = [
        by_name["<|im_start|>"],
        *qwen.encode(qwen.protect(before)),
        by_name["<|im_end|>"],
        *qwen.encode(qwen.protect(after)),
        by_name["<think>"],
    ]
    assert qwen.encode(text) == expected


def test_special_strings_in_unprotected_text_become_their_ids(qwen: Tokenizer) -> None:
    assert qwen.encode("<|im_end|>") == [qwen.eos_token_id]
    assert qwen.eos_token_id not in qwen.encode(qwen.protect("<|im_end|>"))


def test_a_special_string_cannot_be_put_together_from_parts(qwen: Tokenizer) -> None:
    for cut in range(1, len("<|im_end|>")):
        first, second = "<|im_end|>"[:cut], "<|im_end|>"[cut:]
        for text in (
            qwen.protect(first) + qwen.protect(second),
            first + qwen.protect(second),
            qwen.protect(first) + second,
        ):
            assert qwen.eos_token_id not in qwen.encode(text), (first, second)


def test_text_without_special_strings_is_left_as_it_is(qwen: Tokenizer) -> None:
    text = "2 < 3 and a | b, plainly."
    assert qwen.protect(text) is text or qwen.protect(text) == text


def test_added_tokens_that_the_template_writes_are_guarded_and_others_are_not(qwen: Tokenizer) -> None:
    assert {"<think>", "</think>", "<tool_call>", "</tool_call>"} <= qwen.special_tokens
    assert "<|fim_prefix|>" not in qwen.special_tokens
    assert len(qwen.encode(qwen.protect("<|fim_prefix|>"))) == 1


def test_a_special_token_of_one_character_can_be_guarded(
    tokenizer_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(tokenizer_folder("qwen"), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tokenizer.json"
    description = json.loads(file.read_text())
    settings = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    description["added_tokens"] += [{"id": 428, "content": "☃", **settings}, {"id": 429, "content": "☃s☃", **settings}]
    file.write_text(json.dumps(description))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    text = "a☃s☃ \ufdd0☃☃ b"
    ids = tokenizer.encode(tokenizer.protect(text))
    assert not {428, 429} & set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    [encoding] = tokenizer.encode_with_offsets(["a☃b"])
    assert encoding.offsets[-1] == (2, 3)


def test_a_special_string_that_plain_text_makes_too_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    backend = Backend(models.WordLevel({"[UNK]": 0, "#": 1, "a": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["#"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("a #") == [2, 1]
    with pytest.raises(RequestError, match=r"'#'.*even of plain text"):
        tokenizer.protect("a #")
    with pytest.raises(RequestError, match="even of plain text"):
        tokenizer.encode_with_offsets(["a #"])


# What is no text.


@pytest.mark.parametrize("encode", ["encode", "encode_batch", "encode_with_offsets"])
def test_half_a_surrogate_pair_is_the_requests_fault(qwen: Tokenizer, encode: str) -> None:
    text = "ab\ud83d"
    with pytest.raises(RequestError, match="half a surrogate pair at character 2"):
        getattr(qwen, encode)(text if encode == "encode" else ["fine", text])


# Files.


def same_as_transformers(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    ours, theirs = Tokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text).input_ids
        assert ours.decode(theirs(text).input_ids) == theirs.decode(theirs(text).input_ids, skip_special_tokens=True)
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )
    return ours


@pytest.fixture
def copy(tokenizer_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tokenizer_folder("sentencepiece"), tmp_path, dirs_exist_ok=True))


def test_add_bos_and_eos_flags_change_nothing_beside_a_tokenizer_json(copy: Path) -> None:
    same_as_transformers(change_config(copy, add_bos_token=False, add_eos_token=True))


def test_tokens_may_be_given_as_objects(copy: Path) -> None:
    token = {
        "__type": "AddedToken",
        "content": "<new>",
        "lstrip": True,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
    }
    ours = same_as_transformers(change_config(copy, eos_token=token))
    assert ours.eos_token_id == ours.vocab_size - 1


def test_tokens_that_tokenizer_json_lacks_are_added(copy: Path) -> None:
    extra = {
        "content": "<extra>",
        "lstrip": False,
        "normalized": False,
        "rstrip": True,
        "single_word": False,
        "special": False,
    }
    changed = {
        "content": "<|end|>",
        "lstrip": True,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    change_config(
        copy, added_tokens_decoder={"600": extra, "480": changed}, extra_special_tokens=["<more>"], pad_token="<p>"
    )
    ours = same_as_transformers(copy)
    assert "<more>" in ours.special_tokens
    assert "<extra>" not in ours.special_tokens
    from transformers import AutoTokenizer

    text = "a <extra>  b <|end|>  c<more><p>"
    assert ours.encode(text) == AutoTokenizer.from_pretrained(copy)(text).input_ids


def test_an_old_special_tokens_map_is_read(copy: Path) -> None:
    change_config(copy, bos_token=..., eos_token=..., added_tokens_decoder=...)
    tokens = {
        "bos_token": "<s>",
        "eos_token": {"content": "<|end|>", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False},
    }
    (copy / "special_tokens_map.json").write_text(json.dumps(tokens))
    ours = same_as_transformers(copy)
    assert ours.eos_token_id == ours.encode("<|end|>")[-1]


def test_a_tokenizer_without_a_config_is_read(copy: Path) -> None:
    (copy / "tokenizer_config.json").unlink()
    ours = Tokenizer.from_pretrained(copy)
    assert ours.eos_token_id is None
    assert ours.chat_template is None
    assert ours.encode("Hello") != []


def test_truncation_and_padding_in_tokenizer_json_are_not_applied(copy: Path) -> None:
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_file(str(copy / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=8)
    backend.save(str(copy / "tokenizer.json"))
    same_as_transformers(copy)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json: give a checkpoint with one"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json: convert tokenizer\.model"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"model": {}}'])
def test_a_broken_tokenizer_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"added_tokens_decoder": {"1": {"rstrip": True}}}, "special or added tokens"),
        ({"added_tokens_decoder": {"one": {"content": "x"}}}, "special or added tokens"),
        ({"eos_token": {"text": "x"}}, "special or added tokens"),
        ({"chat_template": [{"name": "default"}]}, "chat_template must be"),
        ({"chat_template": 7}, "chat_template must be"),
    ],
)
def test_a_broken_tokenizer_config_is_an_error(copy: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(TokenizerError, match=said):
        Tokenizer.from_pretrained(change_config(copy, **fields))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_tokenizer_config_that_is_no_object_is_an_error(copy: Path, text: str) -> None:
    (copy / "tokenizer_config.json").write_text(text)
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        Tokenizer.from_pretrained(copy)
