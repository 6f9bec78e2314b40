"""YAML documents, the lines of their keys, and overrides."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.spec.document.key_paths import dotted, key_path
from jobs.spec.document.places import read_document

SpecWriter = Callable[[str], Path]


def problem_of(path: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        read_document(path, overrides)
    (problem,) = caught.value.problems
    return problem.replace(str(path), "spec.yaml")


def test_key_below_one_that_was_not_written_has_the_line_of_the_nearest_above(write_spec: SpecWriter) -> None:
    document = read_document(write_spec("a: 1\nb:\n  c: 2\n"))
    assert document.places.of(("b", "c")).endswith("spec.yaml:3")
    assert document.places.of(("b", "d", 0)).endswith("spec.yaml:2")
    assert document.places.of(("e",)).endswith("spec.yaml:1")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "the spec cannot be read: No such file or directory" in problem_of(tmp_path / "none.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_bytes(b"a: \xff")
    assert problem_of(tmp_path / "spec.yaml") == "spec.yaml: the spec is not UTF-8 text (byte 3); save it as UTF-8"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "spec.yaml:1: a spec is a mapping"),
        ("- a\n", "spec.yaml:1: a spec is a mapping"),
        ("a: 1\nb: [1\n", "spec.yaml:3: this is no YAML:"),
        ("a: 1\nb: !!python/name:os.system x\n", "spec.yaml:2: b: has the tag '!!python/name:os.system'"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "spec.yaml:4: b.c: the key stands twice, first on line 3; keep one"),
        ("a: 1\n2: 3\n", "spec.yaml:2: a key must be text; YAML reads '2' as another type"),
        ("a:\n  yes: 3\n", "spec.yaml:2: a: a key must be text; YAML reads 'yes' as another type"),
        ("a: 1\n---\nb: 2\n", "spec.yaml:2: this is no YAML: but found another document"),
        ("a: &x [*x]\n", "spec.yaml:1: a[0][0][0][0][0][0][0]: values are nested more than 100 deep"),
        ("a:\n  &x\n  <<: *x\n", "spec.yaml:2: a: values are nested more than 100 deep"),
        ("a: 1\nb: " + "[" * 2000, "spec.yaml:2: this is no YAML: values are nested more than 100 deep"),
        ("a: 1\nb: \a\n", "spec.yaml:2: this is no YAML: the character U+0007 cannot stand in YAML"),
        ('a: 1\nb: "\\U00110000"\n', "spec.yaml:2: this is no YAML: an escape in double quotes names no character"),
    ],
)
def test_document_that_is_no_mapping_of_text_keys_is_refused(write_spec: SpecWriter, text: str, problem: str) -> None:
    assert problem_of(write_spec(text)).startswith(problem)


def test_aliases_that_multiply_are_refused(write_spec: SpecWriter) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    assert "holds over 100,000 values" in problem_of(write_spec("\n".join(lines)))


def test_merged_keys_are_read(write_spec: SpecWriter) -> None:
    document = read_document(write_spec("a: &a {b: 1}\nc:\n  <<: *a\n  d: 2\n"))
    assert document.values["c"] == {"b": 1, "d": 2}
    assert document.places.of(("c", "b")).endswith("spec.yaml:1")
    assert document.places.of(("c", "d")).endswith("spec.yaml:4")


def test_a_key_goes_before_a_merged_one_and_earlier_merges_before_later(write_spec: SpecWriter) -> None:
    text = "x: &x {k: {l: 1}, m: 2}\ny: &y {k: 3, n: 4}\na:\n  k: 5\n  <<: [*x, *y]\nb: {<<: [*x, *y]}\n"
    document = read_document(write_spec(text))
    assert document.values["a"] == {"k": 5, "m": 2, "n": 4}
    assert document.values["b"] == {"k": {"l": 1}, "m": 2, "n": 4}
    assert document.places.of(("a", "k")).endswith("spec.yaml:4")
    assert document.places.of(("b", "k", "l")).endswith("spec.yaml:1")


def test_an_override_of_a_repeated_value_leaves_the_other_alone(write_spec: SpecWriter) -> None:
    document = read_document(write_spec("a: &a {b: [1]}\nc: *a\n"), ["c.b.0=2"])
    assert document.values == {"a": {"b": [1]}, "c": {"b": [2]}}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2026-02-30", "was '2026-02-30', which is no date or time (day is out of range for month); correct it, or"),
        ("2026-01-31 25:00:00", "was '2026-01-31 25:00:00', which is no date or time (hour must be in 0..23)"),
        ("9" * 6000, "was a number of 6,000 characters; one is written with at most 100"),
        ("0x" + "f" * 6000, "was a number of 6,002 characters"),
        ("1." + "0" * 6000, "was a number of 6,002 characters"),
        ("!!int x", "was 'x', which is no whole number; correct it, or put text in quotes"),
        ("!!bool x", "was 'x', which is no true or false"),
        ("!!timestamp x", "was 'x', which is no date or time"),
        ("!!binary aGk=", "has the tag '!!binary'"),
        ("!!set {a, b}", "has the tag '!!set'"),
        ("!secret x", "has the tag '!secret', which says nothing here; leave it out, or put text that begins with !"),
        ("=", "YAML reads = as a sign of its own; put it in quotes"),
        ('"\\ud800"', "holds U+D800, half of a character; write the whole one"),
    ],
)
def test_a_value_that_no_spec_can_mean_is_refused_with_its_key(
    write_spec: SpecWriter, value: str, problem: str
) -> None:
    assert problem_of(write_spec(f"a: 1\nb:\n  c: [0, {value}]\n")).startswith(f"spec.yaml:3: b.c[1]: {problem}")
    assert f": a.c: {problem}" in problem_of(write_spec("a: {}\n"), f"a.c={value}")


def test_every_value_that_cannot_be_read_is_told(write_spec: SpecWriter) -> None:
    with pytest.raises(SpecError) as caught:
        read_document(write_spec("a: 2026-02-30\nb: 2026-13-01\n"))
    assert len(caught.value.problems) == 2


def test_a_place_of_an_override_is_one_line(write_spec: SpecWriter) -> None:
    assert "\n" not in problem_of(write_spec("a: 1\n"), "a.b\x1b\n=1")


def test_a_key_of_other_characters_is_quoted(write_spec: SpecWriter) -> None:
    assert dotted(("a", "b.c", "d e", "")) == "a.'b.c'.'d e'.''"
    assert problem_of(write_spec("a: {x.y: 2026-02-30}\n")).startswith("spec.yaml:1: a.'x.y': ")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("a", "--set a: an override is written KEY.KEY=VALUE"),
        ("=1", "--set '': an override is written KEY.KEY=VALUE"),
        ("a..b=1", "--set a..b: an override is written KEY.KEY=VALUE"),
        ("a=[1", "--set a: this is no YAML"),
        ("a.b.c=1", "--set a.b.c: a.b is 1, which has no 'c'"),
        ("l.2=1", "--set l.2: l is a list of 2 (its items are 0 to 1), which has no '2'"),
        ("l.x=1", "--set l.x: l is a list of 2"),
    ],
)
def test_override_that_does_not_fit_is_refused(write_spec: SpecWriter, override: str, problem: str) -> None:
    assert problem_of(write_spec("a: {b: 1}\nl: [1, 2]\n"), override).startswith(problem)


def test_override_makes_the_mappings_on_its_way(write_spec: SpecWriter) -> None:
    document = read_document(write_spec("a: {b: null}\n"), ["a.b.c=1", "x.y='2'", "z="])
    assert document.values == {"a": {"b": {"c": 1}}, "x": {"y": "2"}, "z": None}


def test_path_is_written_as_people_write_it() -> None:
    assert dotted(("task", "messages", 0, "role")) == "task.messages[0].role"
    assert key_path("task.messages[0].role") == ("task", "messages", 0, "role")
