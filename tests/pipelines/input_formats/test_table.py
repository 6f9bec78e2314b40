"""The table of input formats: what pages say of it, and that workers can be sent what is in it."""

import pickle
import re
from pathlib import Path

import pytest

from pipelines.input_formats.table import FORMATS, format_by_ending, has_ending

README = Path(__file__).parents[3] / "README.md"


def test_the_readme_names_every_format() -> None:
    (row,) = [line for line in README.read_text().splitlines() if line.startswith("| `input.format` |")]
    named = re.findall(r"`([^`]+)`", row.split("|")[2])
    assert [name for name in named if not name.startswith(".")] == list(FORMATS)


def test_every_format_stands_under_its_name_and_can_be_sent() -> None:
    assert {name: pickle.loads(pickle.dumps(format)).name for name, format in FORMATS.items()} == {
        name: name for name in FORMATS
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("in/a.parquet", "parquet"),
        ("in/A.PQ", "parquet"),
        ("a.arrow", "arrow"),
        ("s3://bucket/a.Feather", "arrow"),
        ("a.ndjson.zst", "jsonl"),
        ("a.csv.GZ", "csv"),
        ("a.parquet.gz", None),
        ("a.arrow.zst", None),
        ("a.gz", None),
        ("parquet", None),
    ],
)
def test_an_ending_tells_one_format(path: str, name: str | None) -> None:
    told = format_by_ending(path)
    assert (told.name if told else None) == name
    assert any(has_ending(format, path) for format in FORMATS.values()) == (name is not None)


def test_of_formats_with_one_ending_the_first_is_told() -> None:
    both = [name for name, format in FORMATS.items() if has_ending(format, "requests.jsonl.gz")]
    assert both == ["jsonl", "openai-batch"]
