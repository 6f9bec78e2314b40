"""Which files an input is made of."""

from pathlib import Path

import fsspec
import pytest

from pipelines.errors import PlanError
from pipelines.job import InputSpec
from pipelines.listing import list_sources


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}\n")


def listed(*paths: str, **options: object) -> list[str]:
    return [file.relative_path for file in list_sources(InputSpec(paths=paths, **options))]  # type: ignore[arg-type]


def test_a_pattern_gives_its_matches_by_name(tmp_path: Path) -> None:
    make(tmp_path, "b.jsonl", "a.jsonl", "c.txt", "sub/d.jsonl")
    assert listed(f"{tmp_path}/*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert listed(f"{tmp_path}/**/*.jsonl") == ["a.jsonl", "b.jsonl", "sub/d.jsonl"]


def test_a_folder_gives_all_known_files_below_but_hidden_ones(tmp_path: Path) -> None:
    make(
        tmp_path, "z.jsonl", "sub/a.jsonl.gz", "notes.md", "_SUCCESS", ".x.jsonl", "_tmp/y.jsonl", "b.ndjson", "c.json"
    )
    assert listed(str(tmp_path)) == ["b.ndjson", "c.json", "sub/a.jsonl.gz", "z.jsonl"]


def test_files_without_ending_are_taken_from_a_folder_when_the_format_is_given(tmp_path: Path) -> None:
    make(tmp_path, "part-0", "notes.md", "x.csv")
    assert listed(str(tmp_path), format="jsonl") == ["part-0"]


def test_paths_keep_the_order_of_the_spec_and_count_once(tmp_path: Path) -> None:
    make(tmp_path, "b/1.jsonl", "a/1.jsonl")
    assert listed(f"{tmp_path}/b/*", f"{tmp_path}/a", f"{tmp_path}/b/1.jsonl") == ["b/1.jsonl", "a/1.jsonl"]


def test_relative_paths_survive_a_move_of_the_corpus(tmp_path: Path) -> None:
    make(tmp_path, "one/in/x/1.jsonl", "two/in/x/1.jsonl")
    assert listed(f"{tmp_path}/one/in/**/*.jsonl") == listed(f"{tmp_path}/two/in/**/*.jsonl") == ["x/1.jsonl"]


def test_a_name_with_brackets_is_taken_as_it_is(tmp_path: Path) -> None:
    make(tmp_path, "a[1].jsonl")
    assert listed(f"{tmp_path}/a[1].jsonl") == ["a[1].jsonl"]


def test_size_and_modification_time_are_those_of_the_file(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")
    stat = (tmp_path / "a.jsonl").stat()
    (file,) = list_sources(InputSpec(paths=(str(tmp_path / "a.jsonl"),)))
    assert (file.size, file.tag, file.is_cuttable) == (stat.st_size, str(stat.st_mtime_ns), True)


def test_compressed_text_cannot_be_cut(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl.zst", "b.jsonl.GZ")
    assert [file.is_cuttable for file in list_sources(InputSpec(paths=(str(tmp_path),)))] == [False, False]


def test_urls_are_listed_through_fsspec() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("/listing/in/b.csv", "/listing/in/sub/a.csv", "/listing/in/_hidden/c.csv"):
        memory.pipe_file(name, b"x\n1\n")
    assert listed("memory://listing/in/*.csv") == ["b.csv"]
    assert listed("memory://listing/in") == ["b.csv", "sub/a.csv"]
    assert listed("memory://listing/in/b.csv") == ["b.csv"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("{}/none-*.jsonl", "none-*.jsonl' matches no Parquet, JSONL or CSV file"),
        ("{}/missing.jsonl", "missing.jsonl' matches no"),
        ("{}/notes.md", "format of input file"),
        ("memory://nowhere/*.csv", "matches no"),
        ("nosuch://x/*.csv", "cannot be listed"),
        ("ftp://me:secret@host/x.csv", "storage_options"),
    ],
)
def test_a_path_that_cannot_be_used_is_named(tmp_path: Path, path: str, text: str) -> None:
    make(tmp_path, "notes.md")
    with pytest.raises(PlanError, match=text.replace("*", r"\*")) as caught:
        listed(path.format(tmp_path))
    assert "secret" not in str(caught.value)


def test_mixed_formats_are_refused_by_name(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "b.csv")
    with pytest.raises(PlanError, match=r"a\.jsonl is jsonl, .*b\.csv is csv"):
        listed(str(tmp_path))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\udcff.jsonl").write_bytes(b"{}")
    with pytest.raises(PlanError, match="UTF-8"):
        listed(str(tmp_path))
