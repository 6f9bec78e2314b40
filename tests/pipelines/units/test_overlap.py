"""An output within the input is refused; what listing would find afterwards is the judge."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pipelines.errors import PlanError
from pipelines.job import InputSpec, OutputSpec
from pipelines.units.listing import list_sources
from pipelines.units.overlap import check_apart

OUTPUT = ("data/part-00000000.parquet", "errors/part-00000000.jsonl", "run.json", "receipts/part-00000000.json")


def is_refused(paths: list[str], output: str) -> bool:
    try:
        check_apart(InputSpec(paths=tuple(paths)), OutputSpec(path=output))
    except PlanError:
        return True
    return False


@pytest.mark.parametrize(
    ("path", "output", "is_within"),
    [
        ("in", "in/out", True),
        ("in", "in", True),
        ("in", "in/_out", True),
        ("in/**", "in/out", True),
        ("in/**/*.parquet", "in/out", True),
        ("in/*/*/*.jsonl", "in/out", True),
        ("in/*.parquet", "in/out", False),
        ("in/*.jsonl", "in/out", False),
        ("in/a.jsonl", "in/out", False),
        ("in", "inner", False),
        ("out/data/*.parquet", "out", True),
        ("out/data", "out", True),
        ("out/data", "out2", False),
        (".", "out", True),
        ("file://{}/in", "in/out", True),
        ("s3://bucket/in", "s3://bucket/in/out", True),
        ("s3://bucket/in/", "s3a://bucket/in/out/", True),
        ("s3://bucket/in/**/*.jsonl", "s3://bucket/in/out", True),
        ("s3://bucket/in", "s3://bucket/inner", False),
        ("s3://bucket/in", "in", False),
    ],
)
def test_an_output_within_the_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, output: str, is_within: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_refused([path.format(tmp_path)], output) is is_within


def test_links_hide_no_overlap(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    assert is_refused([f"{tmp_path}/in"], f"{tmp_path}/link/out")
    assert is_refused([f"{tmp_path}/link/**"], f"{tmp_path}/in/out")


SEGMENTS = st.lists(st.sampled_from(("in", "out", "data", "*", "**", "o*", "_*")), min_size=1, max_size=4)
LAST = st.sampled_from(("*.parquet", "*.jsonl", "*", "**", "part-*", "?un.json", "run.json"))


@given(SEGMENTS, LAST, st.sampled_from(("in/out", "out", "in/_out", "in/deep/out")))
def test_what_a_pattern_would_find_is_refused(
    tmp_path_factory: pytest.TempPathFactory, segments: list[str], last: str, output: str
) -> None:
    root = tmp_path_factory.mktemp("overlap")
    for name in OUTPUT:
        (root / output / name).parent.mkdir(parents=True, exist_ok=True)
        (root / output / name).write_bytes(b"{}\n")
    pattern = str(root.joinpath(*segments, last))
    try:
        found = list_sources(InputSpec(paths=(pattern,), format="jsonl"))
    except PlanError:
        return  # nothing is found, or formats that no run would read together
    assert is_refused([pattern], f"{root}/{output}") is bool(found)
