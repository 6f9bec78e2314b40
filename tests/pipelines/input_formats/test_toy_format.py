"""A format that only the tests know: sections of `key = value` lines, one section a row. One object, and one line in the table."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.errors import SpecError
from jobs.spec.job import load_spec
from pipelines.input_formats.table import FORMATS
from pipelines.job import InputSpec
from pipelines.run import run
from pipelines.tasks.classify import ClassifyTask
from tests.helpers.pipelines.running import job_of, rows_in
from tests.helpers.pipelines.sections_format import SECTIONS


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "sections", SECTIONS)


def section(row: int) -> str:
    return f"[row {row}]\nbody = refund of order {row}\n" if row != 5 else "[row 5]\nno body\n"


SPEC = """
name: toy
model: {{path: nowhere}}
task: {{kind: classify, text: "{{{{ body }}}}"}}
input: {{paths: [in.sections], format: {format}}}
output: {{path: out}}
"""


def test_a_spec_may_name_a_format_that_is_in_the_table(tmp_path: Path, known: None) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(format="sections"))
    assert load_spec(path).job.input.format == "sections"
    path.write_text(SPEC.format(format="session"))
    with pytest.raises(SpecError, match=r"'session'; it must be parquet, "):
        load_spec(path)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_format_of_this_test_alone_is_run(tiny_checkpoint: Callable[..., Path], tmp_path: Path, known: None) -> None:
    """Its units are planned in tasks and read in workers that have never heard of it."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        text = "".join(section(row) for row in range(number * 20, number * 20 + 20))
        (folder / f"{number}.sections").write_text(text)
    job = job_of(
        ClassifyTask(text="{{ body }}"),
        model=tiny_checkpoint("sequence-classification"),
        corpus=folder,
        out=tmp_path / "out",
        unit_rows=8,
        input=InputSpec(paths=(str(folder),)),
    )
    summary = run(job)
    assert (summary.exit_status, summary.progress.rows_done) == (0, 60)
    assert [row["body"] for row in rows_in(tmp_path / "out")] == [
        f"refund of order {row}" for row in range(60) if row != 5
    ]
    (letter,) = rows_in(tmp_path / "out", "errors")
    assert (letter["row"], letter["kind"]) == (5, "malformed_section")
    assert pq.read_table(tmp_path / "out/units.parquet")["format"].unique().to_pylist() == ["sections"]
