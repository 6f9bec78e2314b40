"""What a rule over the next token is: a frozen dataclass of its parameters, each declared once,
and what it does to logits.

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Damping(Rule):
        damping: float = parameter(0.0, Number(least=0, most=1), "taken from every logit")

        @classmethod
        def apply(cls, logits, rows):
            logits.sub_(logits.new_tensor([[row.rule.damping] for row in rows]))

With a place in the table (`models.engine.rules.table`) its parameters are keywords of
`SamplingParams`, keys of a job's `sampling`, and fields of HTTP bodies.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, cast

from models.engine.rules.kinds import Kind

if TYPE_CHECKING:
    import torch

_DECLARED = "parameter"

AnyRule = TypeVar("AnyRule", bound="Rule")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A parameter of a rule: its name, the values it may have, the default, which asks for
    nothing, and what it is for."""

    name: str
    kind: Kind
    default: Any
    purpose: str


def parameter(default: Any, kind: Kind, purpose: str) -> Any:
    """Declares the field of a rule that it stands behind as a parameter with this default, which
    asks for nothing."""
    return field(default_factory=lambda: default, metadata={_DECLARED: (kind, default, purpose)})


def parameters_of(rule: "type[Rule]") -> tuple[Parameter, ...]:
    """The parameters that a rule declares. Other fields are its own."""
    declared = (
        (each.name, each.metadata[_DECLARED]) for each in fields(cast("Any", rule)) if _DECLARED in each.metadata
    )
    return tuple(
        Parameter(name=name, kind=kind, default=default, purpose=purpose) for name, (kind, default, purpose) in declared
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RuledRow(Generic[AnyRule]):
    """A sequence at its next token, whose place is `position`: `tokens` [position] are those
    before it, if its rule looks back, and the first `num_prompt` were given. Tokens that end it
    are `stop_ids`. `tensors` are what `Rule.tensors` made."""

    rule: AnyRule
    tensors: "tuple[torch.Tensor, ...]"
    position: int
    num_prompt: int
    tokens: "torch.Tensor"
    stop_ids: Sequence[int]


class Rule(ABC):
    """See the module. `looks_back` says whether it reads the tokens before the next one. They are
    read where they are, on the device, so that no step waits for the tokens of the last."""

    __slots__ = ()

    looks_back: ClassVar[bool] = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts whose tokens it has to be given (`with_tokens`) before it is applied."""
        return ()

    @property
    def tokens_of_texts(self) -> Sequence[Sequence[int]]:
        """What it was given."""
        return ()

    def with_tokens(self, token_ids: Sequence[Sequence[int]]) -> Self:
        """The same rule, which has the tokens of each of its `texts`.

        Raises:
            ParameterError: it can do nothing with them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no texts, and was given tokens of {len(token_ids)}")

    def tensors(self, device: "torch.device") -> "tuple[torch.Tensor, ...]":
        """What `apply` needs of this rule on the device, made once for each sequence."""
        del device
        return ()

    @classmethod
    @abstractmethod
    def apply(cls, logits: "torch.Tensor", rows: Sequence[RuledRow[Self]]) -> None:
        """Changes the logits [R, V] float32 of R rows that ask for this rule, in place."""
