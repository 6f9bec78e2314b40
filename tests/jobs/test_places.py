"""YAML documents, the lines of their keys, and overrides."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.places import dotted, key_path, read_document

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
        ("a: 1\nb: !!python/name:os.system x\n", "spec.yaml:2: this is no YAML: could not determine a constructor"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "spec.yaml:4: b.c: the key stands twice, first on line 3; keep one"),
        ("a: 1\n2: 3\n", "spec.yaml:2: a key must be text; YAML reads '2' as another type"),
        ("a:\n  yes: 3\n", "spec.yaml:2: a: a key must be text; YAML reads 'yes' as another type"),
        ("a: 1\n---\nb: 2\n", "spec.yaml:2: this is no YAML: but found another document"),
        ("a: &x [*x]\n", "spec.yaml: this is no YAML: maximum recursion depth"),
    ],
)
def test_document_that_is_no_mapping_of_text_keys_is_refused(write_spec: SpecWriter, text: str, problem: str) -> None:
    assert problem_of(write_spec(text)).startswith(problem)


def test_aliases_that_multiply_are_refused(write_spec: SpecWriter) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 7)]
    assert "holds over 100000 values" in problem_of(write_spec("\n".join(lines)))


def test_merged_keys_are_read(write_spec: SpecWriter) -> None:
    document = read_document(write_spec("a: &a {b: 1}\nc:\n  <<: *a\n  d: 2\n"))
    assert document.values["c"] == {"b": 1, "d": 2}
    assert document.places.of(("c", "b")).endswith("spec.yaml:2")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("a", "--set a: an override is written KEY.KEY=VALUE"),
        ("=1", "--set =1: an override is written KEY.KEY=VALUE"),
        ("a..b=1", "--set a..b=1: an override is written KEY.KEY=VALUE"),
        ("a=[1", "--set a=[1: the value is no YAML"),
        ("a.b.c=1", "--set a.b.c=1: a.b is 1, which has no 'c'"),
        ("l.2=1", "--set l.2=1: l is a list of 2 (its items are 0 to 1), which has no '2'"),
        ("l.x=1", "--set l.x=1: l is a list of 2"),
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
