"""Text as tokens arrive: together what decoding gives, and nothing ever taken back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models

from models.text.byte_level import BYTE_OF_CHARACTER
from models.text.detokenizer import (
    ByteStream,
    FragmentStream,
    IncrementalDetokenizer,
    TokenStream,
    WholeStream,
    stream_maker,
)
from models.text.tokenizer import Tokenizer as TextTokenizer
from tests.helpers.models.tiny_tokenizers import KINDS

MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
TEXTS = [
    "",
    " leading space",
    "  two leading spaces",
    "Hello world, don't.  Double  spaces\n\n",
    "日本語の文章です。中文也可以。",
    "😀👩‍👩‍👧‍👦🇩🇪 e\u0301",
    "<|im_start|>a<|im_end|>b </s> c<s>",
]


@pytest.fixture(params=list(KINDS), scope="module")
def tokenizer(request: pytest.FixtureRequest, tokenizer_folder: Callable[[str], Path]) -> TextTokenizer:
    return TextTokenizer.from_pretrained(tokenizer_folder(request.param))


@pytest.fixture(scope="module")
def qwen(tokenizer_folder: Callable[[str], Path]) -> TextTokenizer:
    return TextTokenizer.from_pretrained(tokenizer_folder("qwen"))


@pytest.fixture(scope="module")
def byte_id(tokenizer_folder: Callable[[str], Path]) -> dict[int, int]:
    """The token of each byte in the tokenizer `qwen`."""
    backend = Tokenizer.from_file(str(tokenizer_folder("qwen") / "tokenizer.json"))
    vocabulary = backend.get_vocab()
    return {byte: vocabulary[character] for character, byte in BYTE_OF_CHARACTER.items()}


@pytest.fixture(scope="module")
def sentencepiece(tokenizer_folder: Callable[[str], Path]) -> TextTokenizer:
    return TextTokenizer.from_pretrained(tokenizer_folder("sentencepiece"))


def pushed(detokenizer: IncrementalDetokenizer, ids: list[int], sizes: list[int]) -> list[str]:
    """What each push delivers, then what a push of the rest delivers, then what finish delivers."""
    pieces, place = [], 0
    for size in [*sizes, len(ids)]:
        pieces.append(detokenizer.push(ids[place : place + size]))
        place += size
    return [*pieces, detokenizer.finish()]


@MANY
@given(data=st.data())
def test_the_pieces_are_the_decoded_text_for_any_ids(tokenizer: TextTokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 5), max_size=40))
    sizes = data.draw(st.lists(st.integers(0, 4), max_size=40))
    detokenizer = tokenizer.detokenizer()
    assert "".join(pushed(detokenizer, ids, sizes)) == tokenizer.decode(ids)
    assert detokenizer.text == tokenizer.decode(ids)


@MANY
@given(data=st.data())
def test_the_pieces_are_the_decoded_text_for_any_bytes(
    qwen: TextTokenizer, byte_id: dict[int, int], data: st.DataObject
) -> None:
    part = st.binary(max_size=3) | st.sampled_from("é日😀\ufffd").map(str.encode)
    ids = [byte_id[byte] for byte in b"".join(data.draw(st.lists(part, max_size=12)))]
    assert "".join(pushed(qwen.detokenizer(), ids, [1] * len(ids))) == qwen.decode(ids)


@MANY
@given(data=st.data())
def test_the_pieces_are_the_decoded_text_for_runs_of_byte_tokens(
    sentencepiece: TextTokenizer, data: st.DataObject
) -> None:
    zero = sentencepiece.encode("\x00", add_special_tokens=False)[-1]
    bytes_ = st.binary(min_size=1, max_size=3) | st.sampled_from("é日😀").map(str.encode)
    words = st.sampled_from([" a", " ", "the"]).map(lambda text: sentencepiece.encode(text, add_special_tokens=False))
    parts = data.draw(st.lists(words | bytes_.map(lambda part: [zero + byte for byte in part]), max_size=12))
    ids = [token_id for part in parts for token_id in part]
    assert "".join(pushed(sentencepiece.detokenizer(), ids, [1] * len(ids))) == sentencepiece.decode(ids)


@pytest.mark.parametrize("text", TEXTS)
def test_text_streamed_token_by_token_is_the_text(tokenizer: TextTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert "".join(pushed(tokenizer.detokenizer(), ids, [1] * len(ids))) == tokenizer.decode(ids)


def test_half_a_character_is_never_delivered(qwen: TextTokenizer, byte_id: dict[int, int]) -> None:
    detokenizer = qwen.detokenizer()
    pieces = [detokenizer.push([byte_id[byte]]) for byte in "a😀日é".encode()]
    assert pieces == ["a", "", "", "", "😀", "", "", "日", "", "é"]


def test_what_can_no_longer_become_a_character_is_delivered_at_once(
    qwen: TextTokenizer, byte_id: dict[int, int]
) -> None:
    detokenizer = qwen.detokenizer()
    assert [detokenizer.push([byte_id[byte]]) for byte in b"\xf0\x9fa\xff"] == ["", "", "\ufffda", "\ufffd"]


def test_an_unfinished_character_comes_out_at_the_end(qwen: TextTokenizer, byte_id: dict[int, int]) -> None:
    detokenizer = qwen.detokenizer()
    assert detokenizer.push([byte_id[0xF0], byte_id[0x9F]]) == ""
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.finish() == ""
    assert detokenizer.text == "\ufffd"


def test_special_tokens_and_unknown_ids_are_left_out(qwen: TextTokenizer) -> None:
    ids = [*qwen.encode("a<|im_end|>b<think>"), qwen.vocab_size + 100]
    assert "".join(pushed(qwen.detokenizer(), ids, [])) == "ab<think>" == qwen.decode(ids)


def test_a_special_token_does_not_part_a_character(qwen: TextTokenizer, byte_id: dict[int, int]) -> None:
    first, *rest = (byte_id[byte] for byte in "😀".encode())
    ids = [first, *qwen.encode("<|im_end|>"), *rest]
    assert "".join(pushed(qwen.detokenizer(), ids, [1] * len(ids))) == "😀" == qwen.decode(ids)


def test_only_the_space_before_the_whole_text_is_taken_off(sentencepiece: TextTokenizer) -> None:
    ids = sentencepiece.encode("Hello world and you", add_special_tokens=False)
    pieces = pushed(sentencepiece.detokenizer(), ids, [1] * len(ids))
    assert "".join(pieces) == "Hello world and you"
    assert pieces[-2:] == ["", ""]  # nothing was held back


def test_a_text_that_begins_with_spaces_loses_one_of_them(sentencepiece: TextTokenizer) -> None:
    ids = [*sentencepiece.encode(" ", add_special_tokens=False), *sentencepiece.encode(" a", add_special_tokens=False)]
    assert "".join(pushed(sentencepiece.detokenizer(), ids, [1] * len(ids))) == sentencepiece.decode(ids)


def test_a_token_costs_the_same_however_long_the_text_is(sentencepiece: TextTokenizer) -> None:
    lengths: list[int] = []

    def decode(tokens: list[str]) -> str:
        lengths.append(len(tokens))
        return "".join(tokens)

    stream = FragmentStream(decode)
    for number in range(1000):
        stream.push([f"word{number}"])
    assert max(lengths) <= 2


DECODERS: list[tuple[Any, type[TokenStream]]] = [
    (None, FragmentStream),
    (decoders.ByteLevel(), ByteStream),
    (decoders.Metaspace(), FragmentStream),
    (decoders.WordPiece(), FragmentStream),
    (decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 2, 0)]), FragmentStream),
    (decoders.Sequence([decoders.Strip("▁", 1, 0), decoders.Replace("▁", " ")]), FragmentStream),
    (decoders.Sequence([decoders.Fuse(), decoders.Replace("▁", " ")]), FragmentStream),
    (decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]), FragmentStream),
    (decoders.Sequence([decoders.Fuse(), decoders.Replace("ab", " ")]), WholeStream),
    (decoders.Sequence([decoders.Fuse(), decoders.Replace(Regex("a|b"), " ")]), WholeStream),
    (decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()]), WholeStream),
    (decoders.BPEDecoder("b"), WholeStream),
    (decoders.CTC("a", "b"), WholeStream),
]

TOKENS = ["▁", "▁a", "a", "b", "ab", "##b", "<0xE2>", "<0x41>", ".", ""]


@pytest.mark.parametrize(("decoder", "kind"), DECODERS)
@MANY
@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=12))
def test_every_decoder_streams_to_what_it_decodes(decoder: Any, kind: type[TokenStream], tokens: list[str]) -> None:
    backend = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    if decoder is not None:
        backend.decoder = decoder
    stream = stream_maker(backend)()
    assert isinstance(stream, kind)
    expected = " ".join(tokens) if decoder is None else decoder.decode(tokens)
    assert "".join([*(stream.push([token]) for token in tokens), stream.finish()]) == expected


def test_the_bytes_of_tokens_together_are_the_text(tokenizer: TextTokenizer) -> None:
    text = "x Zürich 日本 😀 naïve"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode().strip() == tokenizer.decode(ids).strip()


def test_the_bytes_of_a_special_token_are_its_string_and_of_no_token_none(qwen: TextTokenizer) -> None:
    (end,) = qwen.encode("<|im_end|>", add_special_tokens=False)
    assert qwen.token_bytes(end) == b"<|im_end|>"
    assert qwen.token_bytes(10**6) == b""
