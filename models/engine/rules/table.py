"""The rules there are, in the order in which transformers applies its own: a new one is a file,
and a line here."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from models.engine.rules.allowed_tokens import AllowedTokens
from models.engine.rules.bad_words import BadWords
from models.engine.rules.count_penalties import CountPenalties
from models.engine.rules.kinds import MisfitError
from models.engine.rules.logit_bias import LogitBias
from models.engine.rules.min_tokens import MinTokens
from models.engine.rules.no_repeat_ngram import NoRepeatNgram
from models.engine.rules.repetition_penalty import RepetitionPenalty
from models.engine.rules.rule import Parameter, Rule, parameters_of
from models.errors import ParameterError

RULES: Final[tuple[type[Rule], ...]] = (
    LogitBias,
    RepetitionPenalty,
    CountPenalties,
    NoRepeatNgram,
    BadWords,
    MinTokens,
    AllowedTokens,
)

PARAMETERS: Final[Mapping[str, Parameter]] = {each.name: each for rule in RULES for each in parameters_of(rule)}
"""Every parameter of every rule by its name."""


def with_parameters(rules: Iterable[Rule], given: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules that ask for something once these parameters are `given`, in the table's order;
    what `rules` had else stays.

    Raises:
        ParameterError: a parameter does not take that value.
    """
    if not given:
        return tuple(rules)
    before = {type(rule): rule for rule in rules}
    return tuple(rule for kind in RULES if (rule := _rule_of(kind, before.get(kind), given)) != kind())


def check_names(given: Iterable[str], others: Iterable[str]) -> None:
    """Refuses names that are no parameter of a rule; `others` are names that might have been
    meant as well.

    Raises:
        ParameterError: one is not.
    """
    for name in given:
        if name not in PARAMETERS:
            close = difflib.get_close_matches(name, [*PARAMETERS, *others], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ParameterError(name, f"is not known{hint}")


def values_of(rules: Iterable[Rule]) -> dict[str, Any]:
    """Every parameter by its name, with its default where no rule has it."""
    found = {parameter.name: parameter.default for parameter in PARAMETERS.values()}
    for rule in rules:
        found |= {parameter.name: getattr(rule, parameter.name) for parameter in parameters_of(type(rule))}
    return found


def tokens_named(rules: Iterable[Rule]) -> Iterator[tuple[str, Collection[int]]]:
    """The tokens that rules name, by their values or by the tokens of their texts, with the
    parameter that names them."""
    for rule in rules:
        declared = parameters_of(type(rule))
        yield from ((each.name, each.kind.token_ids(getattr(rule, each.name))) for each in declared)
        yield from ((declared[0].name, ids) for ids in rule.tokens_of_texts)


def _rule_of(kind: type[Rule], before: Rule | None, given: Mapping[str, Any]) -> Rule:
    declared = parameters_of(kind)
    own = {each.name: _taken(each, given[each.name]) for each in declared if each.name in given}
    if not own:
        return before or kind()
    kept = {} if before is None else {each.name: getattr(before, each.name) for each in declared}
    return kind(**kept | own)


def _taken(parameter: Parameter, value: object) -> Any:
    try:
        return parameter.kind.taken(value)
    except MisfitError as error:
        where = "" if error.at is None else f"[{error.at}]"
        raise ParameterError(parameter.name, error.text(parameter.kind), where) from None
