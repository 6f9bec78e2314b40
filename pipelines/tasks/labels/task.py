"""Classification by a causal model that is asked for one of the labels given: a text -> a probability for each label.

A text that is longer than the model is a bad row, unless the task puts windows of it together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from actors.work import OnePassAnswer
from models.tasks.calibration import (
    CONTENT_FREE,
    Calibration,
    Float64Array,
    FloatArray,
    label_mass,
    log_mean,
    log_prior,
    without_bias,
)
from models.tasks.label_prompt import FORM
from models.tasks.labels import merge_windows
from models.text.tokenizer import Tokenizer
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import RowEncoder
from pipelines.task_base.task import Task, TrialSize
from pipelines.tasks.class_columns import (
    COMPARED,
    COUNTED,
    JUDGED,
    class_columns,
    class_confidences,
    class_fields,
    row_values,
    stacked,
)
from pipelines.tasks.encoding import check_head
from pipelines.tasks.labels.encoder import LabelEncoder
from pipelines.tasks.labels.keys import LabelKeys


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsTask(LabelKeys, Task):
    """One of `labels` with the probability of each, from a causal model; how they are asked for is in `LabelKeys`. `label_mass`
    adds a column. `log_prior` is what `calibrate: prior` has found, once it has.
    """

    kind: ClassVar = "classify"
    template_keys: ClassVar = ("text", "question", "prompt", "messages")
    counted: ClassVar = COUNTED
    judged: ClassVar = JUDGED
    compared: ClassVar = COMPARED

    label_mass: bool = False
    log_prior: tuple[float, ...] | None = None

    @property
    def uses_chat_template(self) -> bool:
        return self.messages is not None

    def encoder(self, tokenizer: Tokenizer, facts: TaskFacts) -> RowEncoder:
        check_head(facts, "causal", "task.labels", "classify with labels of one's own")
        return LabelEncoder(self, tokenizer, facts)

    def fields(self, facts: TaskFacts) -> list["pa.Field[Any]"]:
        del facts
        calibrated = {} if self.calibrate == "none" else {"calibrate": self.calibrate}
        fields = class_fields("single_label", calibrated)
        return [*fields, pa.field("label_mass", pa.float32())] if self.label_mass else fields

    def columns(self, facts: TaskFacts, rows: AnsweredRows) -> list["pa.Array[Any]"]:
        del facts
        logprobs = stacked(rows, len(self.labels))  # [R, L]
        columns = class_columns("single_label", self.labels, self._values(logprobs, rows))
        if not self.label_mass:
            return columns
        mass = merge_windows(label_mass(logprobs)[:, None], rows.first_requests()[:-1], "mean")[:, 0]  # [N]
        return [*columns, pa.array(mass, pa.float32())]

    def why_no_confidence(self) -> str | None:
        if self.calibrate != "batch":
            return None
        return "task.calibrate batch compares the rows of a unit, of which a later model is given only some; use prior or none"

    def why_not_alone(self) -> str | None:
        return "calibrate: batch compares the rows of a unit" if self.calibrate == "batch" else None

    def confidences(self, facts: TaskFacts, rows: AnsweredRows) -> FloatArray:
        del facts
        return class_confidences("single_label", self._values(stacked(rows, len(self.labels)), rows))

    def _values(self, logprobs: FloatArray, rows: AnsweredRows) -> Float64Array:
        """The labels' probabilities in each row [N, L] from those after each prompt [R, L]."""
        return row_values("single_label", self._calibrated(logprobs), rows, self.windows)

    def _calibrated(self, logprobs: FloatArray) -> FloatArray | Float64Array:
        """What is compared of the labels after each prompt [R, L]."""
        if self.calibrate == "none" or not len(logprobs):
            return logprobs
        if self.calibrate == "batch":
            return without_bias(logprobs, log_mean(logprobs))
        assert self.log_prior is not None, "a prior is found before any row"
        return without_bias(logprobs, np.array(self.log_prior))

    @property
    def tried(self) -> TrialSize:
        is_trying = self.calibrate == "prior"
        return TrialSize(num_asked=len(CONTENT_FREE), num_told=len(self.labels)) if is_trying else TrialSize()

    def found_in(self, answers: Sequence[OnePassAnswer]) -> tuple[float, ...]:
        found: list[float] = log_prior(np.stack([answer.values for answer in answers])).tolist()
        return tuple(found)

    def with_found(self, numbers: Sequence[float]) -> "LabelsTask":
        return replace(self, log_prior=tuple(numbers))

    def meaning_of_scores(self, facts: TaskFacts) -> str | None:
        del facts
        match self.calibrate:
            case "none":
                return None
            case "prior":
                inputs = ", ".join(map(repr, CONTENT_FREE))
                return (
                    f"{len(self.labels)} labels, their probabilities over those after texts that say nothing ({inputs})"
                )
            case "batch":
                return f"{len(self.labels)} labels, their probabilities over those that texts of a unit have on average"

    def recorded(self) -> dict[str, Any]:
        values = super(LabelsTask, self).recorded()
        del values["log_prior"]  # follows from the others, and stands beside them
        values |= {name: values[name] or None for name in _UNLESS_SET}
        values["calibrate"] = _CALIBRATIONS_RECORDED[self.calibrate]
        if not self.examples:
            values |= {"select": None, "max_examples": None}
        return values | {"form": FORM if self.text is not None else None}


_CALIBRATIONS_RECORDED: Final[dict[Calibration, Any]] = {
    "none": None,
    "prior": {"prior": list(CONTENT_FREE)},
    "batch": "batch",
}
_UNLESS_SET: Final = ("chat_template_kwargs", "label_texts", "descriptions", "examples", "label_mass")
"""Keys that are in a run's record where they are set: runs that were begun before there were such keys have none of them."""
