"""Keys of a spec made from options that are declared elsewhere (`models.config.option`): their names, types, ranges, defaults
and what an error says is allowed."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import Field, create_model

from jobs.spec.fields import MAX_BYTES
from models.config.option import Declared, declared
from pipelines.task_base.yaml import MAX_COUNT, Strict

Model = TypeVar("Model", bound=Strict)


def with_options_of(owner: type) -> Callable[[type[Model]], type[Model]]:
    """A decorator that adds every option of a dataclass to a model, as a key of the same name. Type checkers do not know these keys:
    who needs one takes it from the dataclass."""

    def add(model: type[Model]) -> type[Model]:
        keys: dict[str, Any] = {name: (_type(each), _field(each)) for name, each in declared(owner).items()}
        whole: type[Model] = create_model(
            model.__name__, __base__=model, __doc__=model.__doc__, __module__=model.__module__, **keys
        )
        return whole

    return add


def _type(option: Declared) -> Any:
    kind = option.kind if option.words else Annotated[option.kind, _bounds(option)]
    return kind | None if option.is_optional else kind


def _bounds(option: Declared) -> Any:
    """A whole number that has no limit of its own has that of all that is counted."""
    most = option.option.most
    if option.kind is int and most is None:
        most = MAX_BYTES if option.option.unit == "bytes" else MAX_COUNT
    return Field(
        ge=option.option.least, gt=option.option.above, le=most, allow_inf_nan=False if option.kind is float else None
    )


def _field(option: Declared) -> Any:
    return Field(option.default, description=option.allowed)
