"""How a spec writes labels of one's own: of a whole classification, or of one of its questions."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from models.tasks.calibration import Calibration
from models.tasks.examples import MAX_EXAMPLES, Selection
from pipelines.task_base.yaml import Strict, Text, wrong
from pipelines.tasks.labels.examples_yaml import fault_of, read_examples
from pipelines.tasks.labels.keys import DEFAULT_MAX_EXAMPLES


class AskedLabelsYaml(Strict):
    """How labels of one's own are written: for a whole classification, or for one of its questions."""

    question: Text | None = Field(
        None, description="a template: the question asked of every text (a causal model with labels)"
    )
    labels: list[str] | dict[str, str] | None = Field(
        None, description="a list of at least two different labels, or a mapping of each to its description"
    )
    label_texts: dict[str, Text] = Field({}, description="a mapping of labels to what is scored in their place")
    label_stop: bool | None = Field(None, description="true, false, or null: where one label begins another")
    examples: list[dict[str, str]] | Text | None = Field(
        None, description="a list of {text: ..., label: ...}, or a file of them as JSON lines"
    )
    select: Selection = Field("first", description="first or similar: which examples a row has")
    max_examples: Annotated[int, Field(ge=1, le=MAX_EXAMPLES)] = Field(
        DEFAULT_MAX_EXAMPLES, description=f"a whole number from 1 to {MAX_EXAMPLES}"
    )
    calibrate: Calibration = Field("none", description="none, prior or batch")
    label_mass: bool = Field(False, description="true or false: a column with the probability of all labels together")

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: list[str] | dict[str, str] | None) -> list[str] | dict[str, str] | None:
        if labels is None:
            return None
        if len(labels) < 2:
            raise ValueError(f"has {len(labels)} label(s); it must be a list of at least two")
        named = list(labels)
        for index, label in enumerate(named):
            if not label.strip():
                raise ValueError(f"label number {index + 1} is empty; every label must be text")
            if label in named[:index]:
                raise ValueError(f"names {label!r} twice; every label must be different")
        for label, description in labels.items() if isinstance(labels, dict) else ():
            if not description.strip():
                raise ValueError(f"has no description of {label!r}; describe every label, or give a list of labels")
        return labels

    @field_validator("examples")
    @classmethod
    def _read(cls, examples: list[dict[str, str]] | str | None) -> list[dict[str, str]] | None:
        return [dict(each) for each in read_examples(examples)] if isinstance(examples, str) else examples

    def check_labels(self, *, needs_text: bool) -> None:
        """Raises what is wrong of what goes with labels; `needs_text` says that examples have a text."""
        labels = list(self.labels or ())
        for label in self.label_texts:
            if label not in labels:
                raise wrong("label_texts", f"has {label!r}, which is none of labels: {', '.join(labels)}")
        if self.examples is None:
            for key in ("select", "max_examples"):
                if key in self.model_fields_set:
                    raise wrong(key, "goes with examples, which are missing")
            return
        assert not isinstance(self.examples, str), "a file of examples is read"
        fault = fault_of(self.examples, labels, needs_text=needs_text)
        if fault is not None:
            number, text = fault
            raise wrong("examples", text if number is None else f"number {number + 1} {text}")

    def label_keys(self) -> dict[str, Any]:
        """All of it by the names of `LabelKeys`."""
        assert self.labels is not None, "only labels are asked for"
        assert not isinstance(self.examples, str), "a file of examples is read"
        values = {
            name: getattr(self, name) for name in AskedLabelsYaml.model_fields if name not in ("labels", "examples")
        }
        descriptions = self.labels if isinstance(self.labels, dict) else {}
        return {
            **values,
            "labels": tuple(self.labels),
            "descriptions": descriptions,
            "examples": tuple(self.examples or ()),
        }


def label_keys_of(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """How a spec writes labels that a run's record has these values of (`LabelsTask.recorded`)."""
    keys = {key: value for key, value in recorded.items() if key not in ("form", "descriptions")}
    if "descriptions" in recorded:
        keys["labels"] = recorded["descriptions"]
    if isinstance(recorded.get("calibrate"), Mapping):  # by name, with what it was calibrated on
        [keys["calibrate"]] = recorded["calibrate"]
    return keys


class QuestionYaml(AskedLabelsYaml):
    """One of the `questions` over a text."""

    @model_validator(mode="after")
    def _has_labels(self) -> "QuestionYaml":
        if self.labels is None:
            raise wrong("labels", "is missing; a question has a list of at least two labels")
        self.check_labels(needs_text=True)
        return self
