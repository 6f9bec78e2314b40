"""The exception tree of `models`.

    ModelError
    ├── ConfigError        config.json or generation_config.json cannot be used, or a setting
    │   └── OptionError    one option cannot be what was given
    ├── CheckpointError    weights are missing, unexpected, misshapen or unreadable
    ├── TokenizerError     tokenizer files cannot be used
    ├── TemplateError      a chat template failed, or went over its limits
    ├── OverrunError       isolated work took too much time or memory, or its process died
    ├── RequestError       this request cannot be served; the others can
    │   └── ParameterError   for one of its parameters
    └── EngineError        the engine itself failed; every request in flight is lost

All but `EngineError` can be caused by what a user gave, so each text says what was given, what is allowed and what
to do.
"""

from typing import Literal

OverrunReason = Literal["time", "memory", "crash"]


class ModelError(Exception):
    """Base of everything `models` raises on purpose."""


class ConfigError(ModelError):
    """A checkpoint's configuration cannot be used."""


class OptionError(ConfigError):
    """An option cannot be what was given: `problem` says what it was and what it may be, without its name."""

    def __init__(self, option: str, problem: str, kind: str = "") -> None:
        """`kind` stands before the name in the whole text: "engine option"."""
        super().__init__(option, problem, kind)
        self.option, self.problem, self.kind = option, problem, kind

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind, self.option, self.problem) if part)


class CheckpointError(ModelError):
    """A checkpoint's weights cannot be used."""


class TokenizerError(ModelError):
    """A checkpoint's tokenizer cannot be used."""


class TemplateError(ModelError):
    """A chat template failed to render, or exceeded its limits."""


class RequestError(ModelError):
    """One request cannot be served: empty, too long, or with settings that contradict each other."""


class ParameterError(RequestError):
    """A parameter of a request, called `name`, cannot be honoured; `at` is the item of it that is wrong, such as [3], or empty, and
    `text` says what was given and what may be, without the name. `kind` stands before that in the whole sentence."""

    def __init__(self, name: str, text: str, at: str = "", kind: str = "sampling parameter") -> None:
        super().__init__(name, text, at, kind)
        self.name, self.text, self.at, self.kind = name, text, at, kind

    def __str__(self) -> str:
        return f"{self.kind} {self.name}{self.at} {self.text}".lstrip()


class OverrunError(ModelError):
    """Isolated work (`models.isolation`) was ended: it went over its limit of time or memory, or its process died."""

    def __init__(self, message: str, reason: OverrunReason, step: int | None = None) -> None:
        """`step` is the item it was at, if it named one."""
        super().__init__(message, reason, step)
        self.message, self.reason, self.step = message, reason, step

    def __str__(self) -> str:
        return self.message


class EngineError(ModelError):
    """The engine failed in mid-step; what it was computing is lost."""
