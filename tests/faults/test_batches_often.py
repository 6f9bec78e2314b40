"""A batch file whose run is killed: the driver, then an engine. Its files are those of a run that was not."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.pipelines.batches import CHAT, line, lines_of, spec_of
from tests.helpers.pipelines.killing import ENGINE, Run
from tests.helpers.pipelines.running import short_folder

NUM_LINES = 400
USER = [{"role": "user", "content": "how are you today?"}]

pytestmark = pytest.mark.faults


@pytest.fixture
def temp() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def test_a_batch_that_is_killed_writes_the_files_of_one_that_is_not(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, temp: Path
) -> None:
    model = tiny_checkpoint("causal", max_position_embeddings=512)
    lines = [line(f"row {n}", CHAT, messages=USER, max_tokens=8) if n % 50 else "no JSON" for n in range(NUM_LINES)]
    for out in ("undisturbed", "killed"):
        spec_of(tmp_path, model, lines, more="unit_rows: 8\n", out=out)
    with Run(tmp_path / "undisturbed.yaml", tmp_path / "undisturbed", temp) as run:
        assert run.wait() == 0, run.output
    with Run(tmp_path / "killed.yaml", tmp_path / "killed", temp) as run:
        run.wait_for_commits(5)
        run.kill_driver()
    with Run(tmp_path / "killed.yaml", tmp_path / "killed", temp) as run:
        run.wait_for_commits(run.num_committed + 5)
        assert run.kill_below(ENGINE)
        assert run.wait() == 0, run.output
    assert len(lines_of(tmp_path / "killed/output.jsonl")) == NUM_LINES - NUM_LINES // 50
    for name in ("output.jsonl", "errors.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
