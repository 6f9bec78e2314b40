"""How labels are asked for: what a task says of its prompts, its labels and its examples."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from models.tasks.calibration import Calibration
from models.tasks.examples import Selection
from models.tasks.label_prompt import BEFORE_LABEL, written_label
from pipelines.tasks.messages import Messages
from pipelines.tasks.windows import Merging

DEFAULT_MAX_EXAMPLES: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelKeys:
    """Exactly one of `text`, which the built-in prompt asks about, `prompt` and `messages` is set.

    `label_texts` is what of a label is scored, where that is not the label; `descriptions` are of labels, for the built-in
    prompt. `label_stop` has the model's stop token follow each label, None where one label begins another. Of the `examples`,
    rows with a `label`, at most `max_examples` are before a prompt. `windows` says how the probabilities of a text too long
    for the model are put together; None makes such a text a bad row.
    """

    text: str | None = None
    labels: tuple[str, ...]
    question: str | None = None
    windows: Merging | None = None
    window: int | None = None
    stride: int | None = None
    allow_special_tokens: bool = False
    prompt: str | None = None
    messages: Messages | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    label_texts: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    label_stop: bool | None = None
    examples: tuple[Mapping[str, str], ...] = ()
    select: Selection = "first"
    max_examples: int = DEFAULT_MAX_EXAMPLES
    calibrate: Calibration = "none"

    @property
    def written(self) -> tuple[str, ...]:
        """What of each label is scored."""
        return tuple(map(self.text_of, self.labels))

    def text_of(self, label: str) -> str:
        """What of a label is scored: behind a prompt of one's own, the label itself unless it has a text."""
        return written_label(label, self.label_texts, before="" if self.text is None else BEFORE_LABEL)
