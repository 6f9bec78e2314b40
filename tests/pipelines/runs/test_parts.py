"""A run whose prompt is made of parts: computed as one whose prompt is written in their order, and gone on with so."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import FingerprintError
from pipelines.job import OutputSpec
from pipelines.ledger.run_record import RUN
from pipelines.parts import settle
from tests.helpers.pipelines.running import GREEDY, contents, drive, job_of, rows_in

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

NUM_ROWS = 30


def fail(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a run that goes on has its order")


def test_a_run_orders_parts_once_and_goes_on_as_it_began(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    corpus = tmp_path / "in.jsonl"
    with corpus.open("w") as file:
        for row in range(NUM_ROWS):
            values = {
                "body": f"late order {row}",
                "product": draw.choice(("lamp", "mug", "pen", "bag")),
                "shop": draw.choice("ab"),
            }
            file.write(json.dumps(values) + "\n")
    parts = ("Review {{ body }}", "Product {{ product }}", "Shop {{ shop }}")
    out, model = tmp_path / "out", tiny_checkpoint()
    task = replace(GREEDY, prompt="Say\n{{ parts }}\nTopic")
    job = job_of(task, model=model, corpus=corpus, out=out, unit_rows=10, parts=parts)
    assert drive(job).exit_status == 0
    record = json.loads((out / RUN).read_bytes())
    assert record["parts_order"] == [1, 2, 0]  # 4 products, whose lines are longer than those of 2 shops
    assert record["spec"]["parts"] == record["fingerprint"]["parts"] == [*parts]

    hand = replace(GREEDY, prompt="Say\nProduct {{ product }}\nShop {{ shop }}\nReview {{ body }}\nTopic")
    by_hand = replace(job, task=hand, parts=(), output=OutputSpec(path=str(tmp_path / "hand"), format="jsonl"))
    assert drive(by_hand).exit_status == 0
    whole = contents(out)
    assert contents(tmp_path / "hand") == whole
    assert len(rows_in(out)) == NUM_ROWS
    record = json.loads((tmp_path / "hand" / RUN).read_bytes())
    assert not {"parts", "parts_order"} & {*record, *record["spec"], *record["fingerprint"]}

    monkeypatch.setattr(settle, "rows_at_places", fail)
    for receipt in sorted((out / "receipts").iterdir())[1:]:
        receipt.unlink()
    assert drive(job).exit_status == 0
    assert contents(out) == whole
    monkeypatch.undo()
    with pytest.raises(FingerprintError, match=r"\n  parts: \[.*\] -> \["):
        drive(replace(job, parts=parts[::-1]))
