"""Offsets over text that a normalizer composes, against `unicodedata`."""

import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from models.text.folds import Folds
from models.text.tokenizer import Tokenizer as OurTokenizer
from tests.helpers.models.tiny_tokenizers import KINDS

ODD = [
    *(
        "e",
        "a",
        "o",
        "q",
        "x",
        " ",
        "1",
        "\u212b",
        "\ufb01",
        "\u0958",
        "\u0344",
        "\u1100",
        "\u1175",
        "\u11b7",
        "\uae40",
    ),
    *(
        "\u0300",
        "\u0301",
        "\u0302",
        "\u0308",
        "\u0315",
        "\u0323",
        "\u0327",
        "\u0328",
        "\u05b0",
        "\u05bc",
        "\u3099",
        "\u309a",
    ),
    *(
        "\u304b",
        "\u30ab",
        "\u0915",
        "\u093c",
        "\u09c7",
        "\u09be",
        "\u0e33",
        "\u1025",
        "\u102e",
        "\u0d46",
        "\u0d3e",
        "\U00011099",
    ),
    *("\U000110ba", "\U0001d15e", "\u200d", "\ufe0f", "😀", "<|im_end|>"),
]
texts = st.lists(st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]), max_size=14).map("".join)
Offset = tuple[int, int]


def characters_of(normalizer: normalizers.Normalizer, text: str) -> list[Offset]:
    """The offsets of each character that the normalizer makes, widened."""
    tokenizer = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    return Folds(normalizer).widen(text, tokenizer.encode(text).offsets)


def borders(composed: str, decomposed: str) -> dict[int, int]:
    """Where both forms of a text can be cut so that the parts are forms of each other: place in one to place in the other."""
    normal = unicodedata.normalize
    prefixes = {normal("NFC", decomposed[:place]): place for place in range(len(decomposed) + 1)}
    return {
        place: prefixes[composed[:place]]
        for place in range(len(composed) + 1)
        if composed[:place] in prefixes and normal("NFC", decomposed[prefixes[composed[:place]] :]) == composed[place:]
    }


def mapped(offset: Offset, places: dict[int, int]) -> Offset:
    """What part of the decomposed text stands for part of the composed one, widened to the next borders."""
    start, end = offset
    return places[max(place for place in places if place <= start)], places[
        min(place for place in places if place >= end)
    ]


@pytest.fixture(scope="module")
def qwen(tokenizer_folder: Callable[[str], Path]) -> OurTokenizer:
    return OurTokenizer.from_pretrained(tokenizer_folder("qwen"))


@settings(max_examples=300, deadline=None)
@given(text=texts)
@example(text="Maria Jos\u00e9")
@example(text="\uae40\ubbfc\uc900")
@example(text="a\u0327\u0301 \u1ecd\u0301 \u0958x\u0344")
def test_tokens_of_decomposed_text_cover_what_those_of_composed_text_do(qwen: OurTokenizer, text: str) -> None:
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    expected, found = qwen.encode_with_offsets([composed, decomposed])
    assert found.ids == expected.ids
    places = borders(composed, decomposed)
    assert found.offsets == [mapped(offset, places) for offset in expected.offsets]


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_what_a_token_covers_is_normalized_to_what_it_is_made_of(text: str) -> None:
    """Whatever form the text has: the parts between tokens that share nothing, normalized one by one, are the normal form."""
    for normalizer, normal in (
        (normalizers.NFC(), partial(unicodedata.normalize, "NFC")),
        (normalizers.NFKC(), partial(unicodedata.normalize, "NFKC")),
    ):
        covered = sorted(set(characters_of(normalizer, text)))
        assert [start for start, _ in covered] == [0, *(end for _, end in covered[:-1])] or not text
        assert "".join(normal(text[start:end]) for start, end in covered) == normal(text)


@pytest.mark.parametrize(
    ("normalizer", "text", "expected"),
    [
        (normalizers.NFC(), "Jose\u0301", [(0, 1), (1, 2), (2, 3), (3, 5)]),
        (normalizers.NFC(), "\u1100\u1175\u11b7\u1106\u1175", [(0, 3), (3, 5)]),
        (normalizers.NFC(), "e\u0323\u0301x", [(0, 2), (2, 3), (3, 4)]),
        (normalizers.NFC(), "a\u0327\u0301x", [(0, 3), (0, 3), (3, 4)]),
        (normalizers.NFC(), "q\u0307\u0323x", [(0, 1), (1, 3), (1, 3), (3, 4)]),
        (normalizers.NFD(), "e\u0301\u00e9", [(0, 1), (1, 2), (2, 3), (2, 3)]),
        (normalizers.NFKC(), "\uff76\uff9e\ufb01", [(0, 2), (2, 3), (2, 3)]),
        (normalizers.NFKC(), "\u3131\u314fx", [(0, 2), (2, 3)]),
        (
            normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
            "e\u0301q\u0323x",
            [(0, 2), (2, 4), (4, 5)],
        ),
        (normalizers.BertNormalizer(lowercase=True), "E\u0301\u0000x", [(0, 2), (3, 4)]),
        (normalizers.Sequence([normalizers.Lowercase(), normalizers.NFC()]), "E\u0301x", [(0, 2), (2, 3)]),
        (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.NFC()]), "e\u0301x", [(0, 2), (0, 2), (2, 3)]),
        (normalizers.Replace("...", "…"), "a...b", [(0, 1), (1, 4), (4, 5)]),
        (normalizers.Replace("ab", "c"), "ababx", [(0, 2), (2, 4), (4, 5)]),
        (normalizers.Replace("e\u0301", "E"), "xe\u0301e\u0301", [(0, 1), (1, 3), (3, 5)]),
        (normalizers.Replace("-", ""), "a-b", [(0, 1), (2, 3)]),
        (normalizers.Strip(), " x ", [(1, 2)]),
    ],
)
def test_each_character_covers_what_it_was_folded_from(
    normalizer: normalizers.Normalizer, text: str, expected: Sequence[Offset]
) -> None:
    assert characters_of(normalizer, text) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_of_composed_text_stay_those_of_the_library(tokenizer_folder: Callable[[str], Path], kind: str) -> None:
    folder = tokenizer_folder(kind)
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("Hello  world, caf\u00e9 日本語 😀 \n", "x" * 50):
        assert (
            OurTokenizer.from_pretrained(folder).encode_with_offsets([text])[0].offsets == theirs.encode(text).offsets
        )


def test_a_marked_text_keeps_its_accents(qwen: OurTokenizer) -> None:
    """Special strings are marked before encoding, which moves what comes after them."""
    text = "<|im_end|> Jose\u0301 <|im_end|>"
    offsets = qwen.encode_with_offsets(["<|im_end|>"], [text])[0].offsets
    assert all(unicodedata.combining(text[start]) == 0 for start, _ in offsets)
    assert (text.index("\u0301") - 1, text.index("\u0301") + 1) in offsets


def test_a_long_run_of_marks_takes_time_in_proportion() -> None:
    text = "e" + "\u0301" * 20_000
    assert characters_of(normalizers.NFC(), text)[:3] == [(0, 2), (2, 3), (3, 4)]
