"""Jobs, units and tokenizers for tests of preparing and finishing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from models.config.types import Head, ProblemType
from models.tasks.facts import ModelFacts
from models.tasks.labels import outcome_of
from models.text.tokenizer import Tokenizer
from pipelines.job import InputSpec, Job, ModelSpec, OutputSpec
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.rows import RowFailure, UnitRows
from pipelines.rows.unit import NO_ROW_GROUP, Unit
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.task import Task

WORDS = tuple(f"w{number}" for number in range(200))
SPECIAL = ("<unk>", "<cls>", "<sep>", "<end>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<cls>{{ message.role }} {{ message.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<cls>assistant {% if enable_thinking is false %}w9 {% endif %}{% endif %}"
)


def word_tokenizer(
    folder: Path, *, has_frame: bool = False, chat_template: str | None = None, eos_token: str | None = "<end>"
) -> Tokenizer:
    """A word a token; with a frame, <cls> text <sep> and <cls> first <sep> second <sep>."""
    names = (*SPECIAL, *WORDS, "user", "assistant", "system", "\n")
    backend = Backend(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(list(SPECIAL))
    if has_frame:
        specials = [("<cls>", 1), ("<sep>", 2)]
        backend.post_processor = processors.TemplateProcessing(
            "<cls> $A <sep>", "<cls> $A <sep> $B:1 <sep>:1", specials
        )
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    if eos_token is not None:
        settings["eos_token"] = eos_token
    if chat_template is not None:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return Tokenizer.from_pretrained(folder)


def make_facts(
    head: Head,
    *,
    names: Sequence[str] = (),
    problem_type: ProblemType | None = None,
    max_model_len: int = 64,
    eos_token_ids: tuple[int, ...] = (3,),
) -> TaskFacts:
    model = ModelFacts(
        head=head,
        class_names=tuple(names),
        outcome=outcome_of(problem_type, len(names)),
        vocab_size=256,
        max_model_len=max_model_len,
        eos_token_ids=eos_token_ids,
    )
    return TaskFacts(model=model)


def make_job(task: Task, *, columns: tuple[str, ...] | None = None, prefix: str = "", seed: int = 0) -> Job:
    return Job(
        name="test",
        model=ModelSpec(path="model"),
        task=task,
        input=InputSpec(paths=("rows.parquet",), columns=columns),
        output=OutputSpec(path="out", prefix=prefix),
        seed=seed,
    )


def make_rows(table: pa.Table, *, first_row: int = 0, failures: tuple[RowFailure, ...] = ()) -> UnitRows:
    unit = Unit(
        index=0,
        path="/rows.parquet",
        relative_path="rows.parquet",
        format="parquet",
        row_group=NO_ROW_GROUP,
        offset=0,
        first_row=first_row,
        num_rows=table.num_rows,
        num_bytes=1,
        source_size=1,
        source_tag="",
        is_cuttable=True,
    )
    numbers = np.arange(first_row, first_row + table.num_rows)
    return UnitRows(unit=unit, rows=ArrowRows(table=table), row_numbers=numbers, failures=failures)
