from models.tasks.label_prompt import LabelledText, LabelPrompt, described, written_label


def test_a_text_is_followed_by_what_is_asked_of_it() -> None:
    assert LabelPrompt().of("A text.") == "Text: A text.\nCategory:"
    assert LabelPrompt().of("A text.", "Which team?") == "Text: A text.\nWhich team?\nCategory:"


def test_examples_are_asked_the_same_and_answered() -> None:
    examples = [LabelledText(text="One.", label=" a"), LabelledText(text="Two.", label=" b")]
    assert LabelPrompt().of("A text.", None, examples) == (
        "Text: One.\nCategory: a\n\nText: Two.\nCategory: b\n\nText: A text.\nCategory:"
    )
    assert LabelPrompt().of("A text.", "Which?", examples[:1]) == (
        "Text: One.\nWhich?\nCategory: a\n\nText: A text.\nWhich?\nCategory:"
    )


def test_described_labels_are_listed_first() -> None:
    prompt = LabelPrompt(descriptions={"billing": "invoices", "shipping": "parcels"})
    assert prompt.of("A text.") == "billing: invoices\nshipping: parcels\n\nText: A text.\nCategory:"


def test_a_label_stands_behind_a_space_unless_it_has_a_text_of_its_own() -> None:
    texts = {"b": "the letter b"}
    assert [written_label(label, texts) for label in ("a", "b")] == [" a", "the letter b"]
    assert [written_label(label, texts, before="") for label in ("a", "b")] == ["a", "the letter b"]


def test_what_is_described_is_a_label_as_it_is_written() -> None:
    assert described({"a": "one", "b": "two"}, {"b": " the letter b"}) == {"a": "one", "the letter b": "two"}
