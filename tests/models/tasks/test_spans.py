import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.tasks.spans import Span, TaggedTokens, TagScheme, find_spans
from models.tasks.windows import cut_windows

BIO = ("O", "B-X", "I-X", "B-Y", "I-Y")


def tagged(
    offsets: Sequence[tuple[int, int]], tags: Sequence[int], scores: Sequence[float] = (), row: int = 0
) -> TaggedTokens:
    return TaggedTokens(
        rows=np.full(len(tags), row, np.int64),
        offsets=np.array(offsets, np.int32).reshape(-1, 2),
        tags=np.array(tags, np.int64),
        scores=np.array(scores or [1.0] * len(tags), np.float64),
    )


def words(text: str) -> list[tuple[int, int]]:
    """Offsets of the words, each with the space before it, as byte-level vocabularies have them."""
    offsets: list[tuple[int, int]] = []
    start = 0
    for word in text.split(" "):
        end = start + len(word) + (1 if offsets else 0)
        offsets.append((start, end))
        start = end
    return offsets


def found(text: str, names: Sequence[str], tags: Sequence[str]) -> list[tuple[str, str]]:
    ids = [names.index(tag) for tag in tags]
    spans = find_spans(tagged(words(text), ids), TagScheme.of(names), [text])[0]
    assert all(text[span.start : span.end] == span.text for span in spans)
    return [(span.label, span.text) for span in spans]


def test_begin_and_inside_tags_make_one_span() -> None:
    assert found("a b c d", BIO, ("B-X", "I-X", "O", "B-Y")) == [("X", "a b"), ("Y", "d")]


def test_a_second_begin_tag_starts_a_second_span() -> None:
    assert found("a b c", BIO, ("B-X", "B-X", "I-X")) == [("X", "a"), ("X", "b c")]


def test_an_inside_tag_that_continues_nothing_starts_a_span() -> None:
    assert found("a b c d", BIO, ("I-X", "I-Y", "O", "I-Y")) == [("X", "a"), ("Y", "b"), ("Y", "d")]


def test_end_and_single_tags_of_bioes_close_a_span() -> None:
    names = ("O", "B-X", "I-X", "E-X", "S-X")
    assert found("a b c d e", names, ("B-X", "E-X", "I-X", "S-X", "S-X")) == [
        ("X", "a b"),
        ("X", "c"),
        ("X", "d"),
        ("X", "e"),
    ]


def test_last_and_unit_tags_of_bilou_close_a_span() -> None:
    names = ("B-X", "I-X", "L-X", "O", "U-X")
    assert found("a b c d", names, ("B-X", "I-X", "L-X", "U-X")) == [("X", "a b c"), ("X", "d")]


def test_equal_plain_labels_beside_each_other_are_one_span() -> None:
    assert found("a b c d", ("O", "X", "Y"), ("X", "X", "Y", "O")) == [("X", "a b"), ("Y", "c")]


def test_plain_labels_may_begin_like_end_and_single_tags() -> None:
    names = ("O", "S-Bahn", "U-Bahn", "B-X", "I-X")
    assert found("a b c d", names, ("S-Bahn", "S-Bahn", "U-Bahn", "B-X")) == [
        ("S-Bahn", "a b"),
        ("U-Bahn", "c"),
        ("X", "d"),
    ]


def test_a_label_that_only_has_single_tags_is_one_of_the_scheme() -> None:
    names = ("O", "B-X", "I-X", "E-X", "S-X", "S-Y")
    assert found("a b c", names, ("S-Y", "S-Y", "S-X")) == [("Y", "a"), ("Y", "b"), ("X", "c")]


class Tagged:
    """Stands for the model in transformers' pipeline: it only asks for the names of the tags."""

    def __init__(self, names: Sequence[str]) -> None:
        self.config = SimpleNamespace(id2label=dict(enumerate(names)))


def pipeline_spans(text: str, names: Sequence[str], tags: Sequence[str]) -> list[tuple[str, str]]:
    """What transformers' token-classification pipeline makes of tagged words with `aggregation_strategy="simple"`."""
    from transformers.pipelines.token_classification import AggregationStrategy, TokenClassificationPipeline

    pipeline: Any = object.__new__(TokenClassificationPipeline)
    pipeline.model = Tagged(names)
    pipeline.tokenizer = SimpleNamespace(convert_tokens_to_string=" ".join)
    scores = np.eye(len(names))
    entities = [
        {"word": text[start:end], "scores": scores[names.index(tag)], "start": start, "end": end, "index": place}
        for place, ((start, end), tag) in enumerate(zip(words(text), tags, strict=True))
    ]
    groups = pipeline.aggregate(entities, AggregationStrategy.SIMPLE)
    return [
        (group["entity_group"], text[group["start"] : group["end"]].strip())
        for group in groups
        if group["entity_group"] != "O"
    ]


MIXED = ("O", "B-X", "I-X", "B-Y", "I-Y", "[PAD]", "MISC", "X")


@settings(deadline=None)  # the first example imports transformers
@given(st.lists(st.sampled_from(MIXED), min_size=1, max_size=12))
@example(["B-X", "I-X", "MISC", "MISC", "X", "I-X", "[PAD]"])
def test_tags_with_and_without_a_prefix_are_grouped_as_by_transformers(tags: list[str]) -> None:
    text = " ".join("ab" for _ in tags)
    assert found(text, MIXED, tags) == pipeline_spans(text, MIXED, tags)


def test_labels_without_an_outside_one_cover_the_text() -> None:
    assert found("a b", ("LABEL_0", "LABEL_1"), ("LABEL_0", "LABEL_1")) == [("LABEL_0", "a"), ("LABEL_1", "b")]


def test_spans_of_neighbouring_rows_stay_apart() -> None:
    tokens = TaggedTokens(
        rows=np.array([0, 1, 1]),
        offsets=np.array([(0, 1), (0, 1), (1, 2)], np.int32),
        tags=np.array([1, 2, 2]),
        scores=np.ones(3),
    )
    spans = find_spans(tokens, TagScheme.of(BIO), ["a", "bc", ""])
    assert [[span.text for span in row] for row in spans] == [["a"], ["bc"], []]


def test_the_score_is_the_mean_probability_of_the_tokens() -> None:
    spans = find_spans(tagged([(0, 1), (1, 3)], [1, 2], [0.5, 1.0]), TagScheme.of(BIO), ["a b"])
    assert spans == [[Span(start=0, end=3, label="X", text="a b", score=0.75)]]


def test_white_space_around_a_span_is_left_out() -> None:
    spans = find_spans(tagged([(1, 5)], [1]), TagScheme.of(BIO), ["x \t a \n"])[0]
    assert [(span.start, span.end, span.text) for span in spans] == [(4, 5, "a")]
    assert find_spans(tagged([(1, 3)], [1]), TagScheme.of(BIO), ["x  y"]) == [[]]


def test_tokens_that_share_a_character_are_in_one_span_only() -> None:
    spans = find_spans(tagged([(0, 1), (0, 1), (1, 2)], [1, 3, 4]), TagScheme.of(BIO), ["😀b"])[0]
    assert [(span.label, span.start, span.end) for span in spans] == [("X", 0, 1), ("Y", 1, 2)]


def test_tokens_without_a_character_are_ignored() -> None:
    spans = find_spans(tagged([(0, 1), (1, 1), (1, 2)], [1, 0, 2]), TagScheme.of(BIO), ["ab"])[0]
    assert [span.text for span in spans] == ["ab"]


documents = st.lists(st.integers(0, len(BIO) - 1), min_size=1, max_size=60)
sizes = st.integers(1, 20).flatmap(lambda room: st.tuples(st.just(room), st.integers(0, room - 1)))


@given(documents, sizes)
def test_windowed_spans_are_those_of_the_whole_document(tags: list[int], size: tuple[int, int]) -> None:
    text = " ".join("w" * (1 + index % 3) for index in range(len(tags)))
    offsets = words(text)
    windows = cut_windows(len(tags), room=size[0], overlap=size[1])
    owned = [token for window in windows for token in range(window.owned_start, window.owned_end)]
    merged = tagged([offsets[token] for token in owned], [tags[token] for token in owned])
    assert find_spans(merged, TagScheme.of(BIO), [text]) == find_spans(tagged(offsets, tags), TagScheme.of(BIO), [text])


@given(documents)
def test_spans_are_in_order_and_never_overlap(tags: list[int]) -> None:
    text = " ".join("ab" for _ in tags)
    spans = find_spans(tagged(words(text), tags), TagScheme.of(BIO), [text])[0]
    assert all(left.end <= right.start for left, right in itertools.pairwise(spans))
    assert all(span.text == span.text.strip() != "" for span in spans)
