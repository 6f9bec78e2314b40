"""Engine options are declared once: whatever else has their names has their types and defaults."""

import inspect
import pickle
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from models import Engine, Scorer
from models.config.option import declared
from models.engine.options import EngineKeywords, EngineOptions
from models.errors import OptionError
from models.loading.load import load_model

OPTIONS = declared(EngineOptions)


def test_every_field_is_declared() -> None:
    hints = get_type_hints(EngineOptions, include_extras=True)
    assert {name for name, hint in hints.items() if get_origin(hint) is Annotated} == set(hints) == set(OPTIONS)
    assert all(each.option.unset for each in OPTIONS.values() if each.default is None)


def test_the_keywords_of_an_engine_are_its_options() -> None:
    assert get_type_hints(EngineKeywords) == get_type_hints(EngineOptions)
    assert not EngineKeywords.__required_keys__


@pytest.mark.parametrize("function", [Engine.from_pretrained, Scorer.from_pretrained, load_model])
def test_arguments_that_are_options_have_their_types_and_defaults(function: Callable[..., Any]) -> None:
    """An engine takes them all as keywords; what takes some of them has arguments of its own for these."""
    hints, found = get_type_hints(function), inspect.signature(function).parameters
    for name in found.keys() & OPTIONS.keys():
        assert (hints[name], found[name].default) == (get_type_hints(EngineOptions)[name], OPTIONS[name].default)
    if function == Engine.from_pretrained:
        (keywords,) = get_args(hints["settings"])
        assert keywords is EngineKeywords
    else:
        assert found.keys() & OPTIONS.keys()


def test_two_sizes_of_one_cache_are_refused() -> None:
    with pytest.raises(
        OptionError, match="gpu_memory_fraction stands beside cache_bytes; both size the cache, give one"
    ):
        EngineOptions(cache_bytes=1 << 20, gpu_memory_fraction=0.5)


def test_a_refusal_crosses_processes_whole() -> None:
    with pytest.raises(OptionError) as caught:
        EngineOptions(block_size=0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) == "engine option block_size was 0; it must be at least 1"
    assert (again.option, again.problem) == ("block_size", "was 0; it must be at least 1")
