"""Examples from a file: read with the spec, line by line."""

from pathlib import Path

import pytest

from pipelines.tasks.classify_yaml import ClassifyYaml
from pipelines.tasks.labels import examples_yaml
from pipelines.tasks.labels.examples_yaml import read_examples
from pipelines.tasks.labels.task import LabelsTask


def test_a_file_of_examples_is_part_of_the_task(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"text": "One.", "label": "a"}\n\n{"text": "Zwei.", "label": "b"}\n')
    values = {
        "kind": "classify",
        "text": "{{ body }}",
        "labels": ["a", "b"],
        "examples": str(file),
        "select": "similar",
    }
    task = ClassifyYaml.model_validate(values).to_task()
    file.unlink()
    assert isinstance(task, LabelsTask)
    assert task.examples == ({"text": "One.", "label": "a"}, {"text": "Zwei.", "label": "b"})
    assert task.recorded()["examples"] == task.examples


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"text": "a"}\n{"text": ', "line 2 of .* is no JSON"),
        ('\n \n{"text": ', "line 3 of .* is no JSON"),
        ('["a"]', "line 1 of .* is no JSON object of texts"),
        ('{"text": 3, "label": "a"}', "line 1 of .* is no JSON object of texts"),
    ],
)
def test_a_line_that_is_no_example_is_named(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(content)
    with pytest.raises(ValueError, match=problem):
        read_examples(str(file))


def test_a_file_that_is_too_large_or_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"text": "a", "label": "a"}\n' * 10)
    monkeypatch.setattr(examples_yaml, "MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="give a smaller file"):
        read_examples(str(file))
    with pytest.raises(ValueError, match="cannot be read: Is a directory; give a file of JSON lines, or a list"):
        read_examples(str(tmp_path))
