"""Result columns of classification: the label, its score, every class's score.

What a checkpoint's values mean is `ModelFacts.outcome`. Windows of one text are put together class by class.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.tasks.labels import MULTI_LABEL_THRESHOLD, Outcome, class_values, merge_windows
from pipelines.errors import TaskError
from pipelines.task_base.answers import AnsweredRows
from pipelines.task_base.compared import Compared, Said
from pipelines.task_base.judged import Claim, Form, Judged
from pipelines.task_base.task import Counted
from pipelines.tasks.windows import Merging

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

SCORES = pa.map_(pa.string(), pa.float32())


def class_fields(outcome: Outcome, of_scores: Mapping[str, str] | None = None) -> list["pa.Field[Any]"]:
    """The columns of a classification; those of a regression say in their metadata that they hold no probabilities, others what
    `of_scores` says of them."""
    metadata = {"problem_type": "regression"} if outcome == "regression" else dict(of_scores or {}) or None
    fields: list[pa.Field[Any]] = [
        pa.field("label", pa.string()),
        pa.field("score", pa.float32(), metadata=metadata),
        pa.field("scores", SCORES, metadata=metadata),
    ]
    return [*fields, pa.field("labels", pa.list_(pa.string()))] if outcome == "multi_label" else fields


def class_columns(outcome: Outcome, names: Sequence[str], values: Float64Array) -> list["pa.Array[Any]"]:
    """One array a field; `names` are the classes, `values` what is shown of each class of each row [N, C]."""
    shown = values.astype(np.float32)
    scores = _score_maps(names, shown)
    if outcome == "regression":
        only = pa.array(shown[:, 0], pa.float32()) if len(names) == 1 else pa.nulls(len(values), pa.float32())
        return [pa.nulls(len(values), pa.string()), only, scores]
    best = values.argmax(axis=1)  # the first of equals
    label = pa.array(names, pa.string()).take(best)
    score = pa.array(np.take_along_axis(shown, best[:, None], axis=1)[:, 0], pa.float32())
    return [label, score, scores, _chosen(names, shown)] if outcome == "multi_label" else [label, score, scores]


def class_confidences(outcome: Outcome, values: Float64Array) -> FloatArray:
    """How sure a model is of each row's answer [N], from what is shown of each class [N, C]: the `score` of the label; where a
    checkpoint decides on every class apart, how sure it is of the decision that it is least sure of.

    Raises:
        TaskError: they are values of a regression, which say nothing of that.
    """
    if outcome == "regression":
        raise TaskError("cascade", "the checkpoint is a regression, whose values are no probabilities; give one model")
    shown = values.astype(np.float32)
    if outcome == "multi_label":
        least: FloatArray = np.maximum(shown, np.float32(1) - shown).min(axis=1, initial=1)
        return least
    best: FloatArray = shown.max(axis=1, initial=0)
    return best


def row_values(
    outcome: Outcome, logits: FloatArray | Float64Array, rows: AnsweredRows, merging: Merging | None
) -> Float64Array:
    """What is shown of each class of each row [N, C], from the logits of all requests [R, C]; `merging` is how windows are put
    together."""
    if rows.num_rows == 0:
        return np.empty((0, logits.shape[1]))
    return merge_windows(class_values(logits, outcome), rows.first_requests()[:-1], merging or "mean")


def stacked(rows: AnsweredRows, num_classes: int) -> FloatArray:
    """The logits of all requests [R, C]."""
    return np.stack(rows.logits) if rows.num_rows else np.empty((0, num_classes), np.float32)


def _labels_in(row: Mapping[str, Any]) -> Iterable[tuple[str, float | None]]:
    """The labels of a row of results: all that were chosen where a checkpoint decides on each class apart, else the one."""
    if "labels" in row:
        return [(label, None) for label in row["labels"]]
    return [] if row["label"] is None else [(row["label"], row["score"])]


def _known(row: Mapping[str, Any], class_names: Sequence[str]) -> Sequence[str]:
    """Every class has a score in every row, and is a label but for those of a regression."""
    del class_names
    return [] if row.get("label") is None else [*row.get("scores", ())]


COUNTED = Counted(
    title="Labels of rows",
    columns=("label", "score", "labels"),
    labels_in=_labels_in,
    known_columns=("label", "scores"),
    known=_known,
)


def _form_in(row: Mapping[str, Any]) -> Form:
    if "labels" in row:
        return "labels"
    if row["label"] is None:
        raise ValueError("a regression has values and no labels, which no truth of labels can be held against")
    if len(row["scores"]) == 1:
        raise ValueError(f"the checkpoint has one class, {row['label']!r}, which every row is given")
    return "label"


def _claims_in(row: Mapping[str, Any]) -> Sequence[Claim]:
    if "labels" not in row:
        return [Claim(label=row["label"], score=row["score"])]
    chosen = frozenset(row["labels"])
    return [Claim(label=name, score=score, is_made=name in chosen) for name, score in row["scores"].items()]


JUDGED = Judged(
    columns=("label", "score", "labels"), form_in=_form_in, claims_in=_claims_in, more={"labels": ("scores",)}
)


def _said_in(row: Mapping[str, Any]) -> Said:
    if "labels" in row:
        return Said(answers=row["labels"], labels=row["labels"], numbers=row["scores"])
    if row["label"] is None:
        return Said(numbers=row["scores"])
    return Said(answers=[row["label"]], labels=[row["label"]], is_one_label=True, numbers=row["scores"])


COMPARED = Compared(what="labels", columns=("label", "labels", "scores"), said_in=_said_in)


def _score_maps(names: Sequence[str], shown: npt.NDArray[np.float32]) -> "pa.Array[Any]":
    num_rows, num_classes = shown.shape
    keys = pa.array(names, pa.string()).take(np.tile(np.arange(num_classes), num_rows))
    offsets: Any = pa.array(np.arange(num_rows + 1) * num_classes, pa.int32())
    maps: pa.Array[Any] = pa.MapArray.from_arrays(offsets, keys, pa.array(shown.ravel(), pa.float32()))
    return maps


def _chosen(names: Sequence[str], shown: npt.NDArray[np.float32]) -> "pa.Array[Any]":
    """The classes over the threshold."""
    is_chosen = shown >= MULTI_LABEL_THRESHOLD
    offsets: Any = pa.array(np.concatenate([[0], np.cumsum(is_chosen.sum(axis=1))]), pa.int32())
    lists: pa.Array[Any] = pa.ListArray.from_arrays(
        offsets, pa.array(names, pa.string()).take(np.nonzero(is_chosen)[1])
    )
    return lists
