"""Which files an input is made of."""

import os
import socket
import tempfile
from pathlib import Path

import fsspec
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pipelines.errors import PlanError
from pipelines.job import InputSpec
from pipelines.units.listing import PassedOver, find_sources, list_sources


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
        ("{}/none-*.jsonl", "none-*.jsonl' matches no Parquet, Arrow, JSONL, CSV or OpenAI batch file"),
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


def test_a_folder_and_its_two_stars_are_the_same_files(tmp_path: Path) -> None:
    names = ("z.jsonl", "sub/a.jsonl.gz", "sub/deep/b.ndjson", "notes.md", "sub/x.txt", "_SUCCESS", ".x.jsonl")
    make(tmp_path, *names, "_tmp/y.jsonl", "sub/_x.jsonl", ".git/z.jsonl", "_day=1/k.jsonl")
    right = ["_day=1/k.jsonl", "sub/a.jsonl.gz", "sub/deep/b.ndjson", "z.jsonl"]
    for path in ("", "/", "/**", "/**/*"):
        assert listed(f"{tmp_path}{path}") == right, path


def test_two_stars_of_a_store_are_the_same_files_too() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("b.csv", "sub/a.csv", "_hidden/c.csv", "sub/.d.csv", "notes.md"):
        memory.pipe_file(f"/stars/in/{name}", b"x\n1\n")
    for path in ("", "/**", "/**/*"):
        assert listed(f"memory://stars/in{path}") == ["b.csv", "sub/a.csv"], path


def test_hidden_names_are_those_of_patterns_that_name_them(tmp_path: Path) -> None:
    make(tmp_path, "_a.jsonl", "b.jsonl", "_tmp/c.jsonl")
    assert listed(f"{tmp_path}/*.jsonl") == ["b.jsonl"]
    assert listed(f"{tmp_path}/_*.jsonl") == ["_a.jsonl"]
    assert listed(f"{tmp_path}/_tmp/*") == ["c.jsonl"]


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.jsonl", "/*/*.jsonl", "/*/*/*.jsonl"])
def test_loops_of_links_double_no_file(tmp_path: Path, pattern: str) -> None:
    make(tmp_path / "in", "a/x.jsonl", "a/b/y.jsonl")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a" / "self").symlink_to("self")
    (tmp_path / "in" / "0-first-by-name").symlink_to(tmp_path / "in" / "a" / "b")
    found = find_sources(InputSpec(paths=(f"{tmp_path}/in{pattern}", f"{tmp_path}/in/a"))).files
    inodes = [Path(file.path).stat().st_ino for file in found]
    assert len(set(inodes)) == len(inodes)
    if "/*/" not in pattern:
        assert [file.relative_path for file in found] == ["a/b/y.jsonl", "a/x.jsonl"]


def test_a_linked_folder_is_entered_once_wherever_it_leads(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/x.jsonl", "in/y.jsonl")
    for name in ("one", "two"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere")
    assert listed(f"{tmp_path}/in") == ["one/x.jsonl", "y.jsonl"]
    assert listed(f"{tmp_path}/in/**/*.jsonl") == ["one/x.jsonl", "y.jsonl"]


def test_a_file_and_links_to_it_count_once(tmp_path: Path) -> None:
    make(tmp_path, "in/b.jsonl", "other/c.jsonl")
    (tmp_path / "in" / "a.jsonl").symlink_to("b.jsonl")
    (tmp_path / "in" / "d.jsonl").symlink_to(tmp_path / "other" / "c.jsonl")
    (tmp_path / "link").symlink_to("in")
    assert listed(f"{tmp_path}/in") == ["b.jsonl", "d.jsonl"]
    assert listed(f"{tmp_path}/link", f"{tmp_path}/in") == ["link/b.jsonl", "link/d.jsonl"]
    assert listed(f"{tmp_path}/in/a.jsonl", f"{tmp_path}/in/b.jsonl") == ["a.jsonl"]


def test_equal_files_under_two_names_are_two(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").hardlink_to(tmp_path / "a.jsonl")
    assert listed(str(tmp_path)) == ["a.jsonl", "b.jsonl"]


def test_pipes_and_sockets_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")
    os.mkfifo(tmp_path / "b.jsonl")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "c.jsonl"))
        for path in (str(tmp_path), f"{tmp_path}/*.jsonl"):
            assert listed(path) == ["a.jsonl"]
    with pytest.raises(PlanError, match=r"b\.jsonl is no regular file"):
        listed(f"{tmp_path}/b.jsonl")


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("gone")
    for path in (str(tmp_path), f"{tmp_path}/*.jsonl"):
        with pytest.raises(PlanError, match=r"b\.jsonl is a link to nothing"):
            listed(path)


def test_what_is_passed_over_for_its_ending_is_counted_with_examples(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "b.txt", "c.md", "sub/d", "sub/e.csv", "_SUCCESS", "sub/f.jsonl")
    found = find_sources(InputSpec(paths=(str(tmp_path), f"{tmp_path}/**"), format="jsonl"))
    assert [file.relative_path for file in found.files] == ["a.jsonl", "sub/d", "sub/f.jsonl"]
    assert found.passed_over == PassedOver(num_files=3, examples=("b.txt", "c.md", "sub/e.csv"))
    assert str(found.passed_over) == "3 files passed over for their endings (b.txt, c.md, sub/e.csv)"
    assert str(PassedOver(num_files=1, examples=("b.txt",))) == "1 file passed over for its ending (b.txt)"
    assert str(PassedOver(num_files=4000, examples=("b", "c"))).startswith(
        "4,000 files passed over for their endings (b, c, ..."
    )


def test_a_folder_of_other_endings_only_says_so(tmp_path: Path) -> None:
    make(tmp_path, "b.txt", "c.txt")
    with pytest.raises(PlanError, match=r"but 2 with other endings, such as .*b\.txt; .*input\.format"):
        listed(str(tmp_path))


NAMES = st.sampled_from(("a", "b", "_h", ".h", "k=v"))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.lists(NAMES, max_size=3), st.sampled_from(("x.jsonl", "y.txt", "_z.jsonl"))), max_size=6),
    st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=2), st.lists(NAMES, max_size=2)), max_size=3),
)
def test_every_real_file_is_found_once_whatever_links_there_are(
    files: list[tuple[list[str], str]], links: list[tuple[list[str], list[str]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make(root, "first.jsonl", *("/".join([*folders, name]) for folders, name in files))
        for at, to in links:
            place = root.joinpath(*at)
            if place.parent.is_dir() and not os.path.lexists(place):
                place.symlink_to(root.joinpath(*to))
        if any(path.is_symlink() and not path.exists() for path in root.rglob("*")):
            return
        found = find_sources(InputSpec(paths=(str(root),))).files
        inodes = [Path(file.path).stat().st_ino for file in found]
        shown = [
            path
            for path in root.rglob("*.jsonl")
            if not any(name[0] in "._" for name in path.relative_to(root).parts)
            and not path.is_symlink()
            and path.resolve() == path
        ]
        assert len(set(inodes)) == len(inodes)
        assert {path.stat().st_ino for path in shown} <= set(inodes)
