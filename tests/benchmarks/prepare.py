"""What the process with limits costs: `python -m tests.benchmarks.prepare [--units 40] [--repeats 5] [--tokenizer FOLDER]`.

Units of the real size are prepared to blocks in turns, in this process and in an `IsolatedPreparer`, by four jobs with
simple templates over one corpus. Prints rows/s of both (the best of the repeats: other load only slows) and their ratio.
"""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from models import SamplingParams
from models.config.model_config import ModelConfig
from models.config.types import Head
from pipelines.rows.rows import UnitRows
from pipelines.task_base.pace import SLICE_CHARS
from pipelines.task_base.task import Task
from pipelines.tasks.classify import ClassifyTask
from pipelines.tasks.generate import GenerateTask
from pipelines.tasks.spans import SpansTask
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.unit_steps.isolated_work import Workbench, prepare_block
from pipelines.units.planning import unit_rows_of
from tests.benchmarks.unit_overhead import say
from tests.helpers.pipelines.making import make_job, make_rows
from tests.helpers.pipelines.running import WORDS
from tests.helpers.tiny_checkpoints import save_with_tokenizer

_CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SAMPLING = SamplingParams(max_tokens=1)
_MESSAGES = ({"role": "system", "content": "Answer shortly."}, {"role": "user", "content": "{{ body }}"})
TASKS: dict[str, tuple[Head, Task]] = {
    "generate, prompt": ("causal", GenerateTask(prompt="{{ body }}", sampling=_SAMPLING)),
    "generate, messages": ("causal", GenerateTask(messages=_MESSAGES, sampling=_SAMPLING)),
    "classify, head": ("sequence-classification", ClassifyTask(text="{{ body }}")),
    "extract": ("token-classification", SpansTask(text="{{ body }}")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=40, help="units of a measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--words", type=int, default=60, help="words of a row's text, about")
    parser.add_argument("--tokenizer", type=Path, help="a folder with another tokenizer.json and tokenizer_config.json")
    options = parser.parse_args()
    for name, (head, task) in TASKS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "model"
            save_with_tokenizer(model, "qwen3", head, {})
            for file in () if options.tokenizer is None else options.tokenizer.glob("tokenizer*.json"):
                shutil.copy(file, model)
            (model / "chat_template.jinja").write_text(_CHAT)
            compare(name, task, model, options)


def compare(name: str, task: Task, model: Path, options: argparse.Namespace) -> None:
    """Measures one job, and prints its line."""
    job, config = make_job(task), ModelConfig.from_pretrained(model)
    units = [unit_of(number, unit_rows_of(job), options.words) for number in range(options.units)]
    bench = Workbench(job, model, config)
    with closing(IsolatedPreparer(job, model, config)) as preparer:
        ways: list[Callable[[UnitRows], pa.Table]] = [
            lambda unit: prepare_block(bench, unit, SLICE_CHARS),
            preparer.block,
        ]
        for way in ways:
            way(units[0])
        rates = [[rows_per_s(way, units) for way in ways] for _ in range(options.repeats)]
    here, isolated = (max(column) for column in zip(*rates, strict=True))
    say(f"{name:20}  here {here:10,.0f} rows/s  isolated {isolated:10,.0f} rows/s  {isolated / here:.2f} times")


def unit_of(number: int, num_rows: int, num_words: int) -> UnitRows:
    """A unit of rows {id, body}."""
    draw = random.Random(number)
    bodies = [
        " ".join(draw.choices(WORDS, k=draw.randint(num_words // 2, num_words * 3 // 2))) for _ in range(num_rows)
    ]
    return make_rows(pa.table({"id": range(num_rows), "body": bodies}))


def rows_per_s(way: Callable[[UnitRows], pa.Table], units: Sequence[UnitRows]) -> float:
    begun = time.perf_counter()
    for unit in units:
        way(unit)
    return sum(unit.rows.num_rows for unit in units) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
