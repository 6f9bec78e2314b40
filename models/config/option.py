"""How an option is declared: once, beside its type and its default, in the dataclass of whatever has it.

    block_size: Annotated[int | None, Option("tokens in a page of the KV cache", least=1, unset="by device")] = None

`declared` reads a dataclass back: specs, checks and the reference are made from it or held against it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from models.errors import OptionError

Unit = Literal["tokens", "bytes", "seconds"]


@dataclass(frozen=True, slots=True)
class Option:
    """What an option is, for people, and the numbers it may be: from `least` or over `above`, to `most`. `unset` is what
    stands in its place where it is None, or absent."""

    text: str
    unit: Unit | None = None
    least: int | None = None
    above: float | None = None
    most: float | None = None
    unset: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """One option of a dataclass: a number in a range, or one of `words`. `kind` is the type of a value that is given."""

    name: str
    kind: Any
    default: Any
    option: Option
    is_optional: bool

    @property
    def words(self) -> tuple[str, ...]:
        """What it may be, if that is one of a few words."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def range(self) -> str:
        """The numbers it may be, or the words."""
        option = self.option
        if self.words:
            return f"one of {', '.join(self.words)}"
        if option.least is not None:
            return f"at least {option.least:,}" if option.most is None else f"from {option.least:,} to {option.most:,}"
        return f"over {option.above:,}" + ("" if option.most is None else f" and at most {option.most:,}")

    @property
    def allowed(self) -> str:
        """What it may be, whole: "a whole number of tokens, at least 1"."""
        if self.words:
            return self.range
        of = f" of {self.option.unit}" if self.option.unit else ""
        comma = "," if self.range.startswith("at least") else ""
        return f"a {'whole ' if self.kind is int else ''}number{of}{comma} {self.range}"

    def problem(self, value: object) -> str | None:
        """What is wrong with a value: "was 0; it must be at least 1"; None: nothing."""
        if value is None and self.is_optional:
            return None
        if self.words:
            return None if value in self.words else f"was {value!r}; it must be {self.range}"
        number = Integral if self.kind is int else Real
        if not isinstance(value, number) or isinstance(value, bool):
            return f"was {value!r}; it must be {self.allowed}"
        if value != value or abs(value) == math.inf:  # noqa: PLR0124 - isfinite takes no integer of more digits than a float
            return f"was {value}; it must be {self.allowed}, and finite"
        return None if self._holds(value) else f"was {value}; it must be {self.range}"

    def _holds(self, value: Any) -> bool:
        option = self.option
        is_enough = option.least is None or value >= option.least
        is_over = option.above is None or value > option.above
        return is_enough and is_over and (option.most is None or value <= option.most)


def declared(owner: type) -> Mapping[str, Declared]:
    """The options of a dataclass by their names, in their order, those it inherits first."""
    return {each.name: each for each in _read(owner)}


def check_options(options: object, kind: str = "") -> None:
    """Holds the values of a dataclass's options against their declarations; `kind` is what its errors call one.

    Raises:
        OptionError: a value is not allowed.
    """
    for name, each in declared(type(options)).items():
        problem = each.problem(getattr(options, name))
        if problem is not None:
            raise OptionError(name, problem, kind)


def _read(owner: Any) -> Iterator[Declared]:
    defaults = {each.name: each.default for each in fields(owner)}
    for name, hint in get_type_hints(owner, include_extras=True).items():
        option = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Option)), None)
        if get_origin(hint) is not Annotated or option is None:
            continue
        kind = get_args(hint)[0]
        is_optional = get_origin(kind) in (Union, UnionType)
        if is_optional:
            (kind,) = (part for part in get_args(kind) if part is not type(None))
        yield Declared(name=name, kind=kind, default=defaults[name], option=option, is_optional=is_optional)
