"""The rotary embedding of a checkpoint, from its old and its new spelling to one `RopeConfig`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.config.fields import ConfigFields
from models.config.limits import MAX_FACTOR, MAX_POSITIONS, MAX_THETA
from models.config.types import RopeConfig

# What each kind of rotary embedding cannot do without, next to theta.
ROPE_KINDS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
_SCALES_FROM_ORIGINAL = ("yarn", "llama3", "longrope")


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeRules:
    """What a family's published class reads: the kinds it allows and the older names it renames to one of them, its
    default theta, whether it rotates a part of each head only, and its default for the original context beside the
    dict, where its class has one; that wins over one inside the dict."""

    theta: float
    kinds: tuple[str, ...] = tuple(ROPE_KINDS)
    renamed: Mapping[str, str] = field(default_factory=dict)
    has_partial_rotary: bool = False
    original_context: int | None = None


def read_rope(fields: ConfigFields, rules: RopeRules, *, head_dim: int, max_positions: int) -> RopeConfig:
    """`rope_scaling` if it holds anything, else `rope_parameters`; a value inside the dict wins over one beside it.

    Raises:
        ConfigError: a value is missing or cannot be used.
    """
    name = "rope_scaling" if fields.values.get("rope_scaling") else "rope_parameters"
    rope = fields.nested(name)
    parameters = dict(rope.values)
    if any(isinstance(value, Mapping) for value in parameters.values()):
        raise fields.error(name, "one set of parameters; a set for each layer type is not supported")
    spelling = "type" if rope.values.get("rope_type") is None else "rope_type"
    named = rope.choice(spelling, (*rules.kinds, *rules.renamed), "default")
    kind = rules.renamed.get(named, named)
    theta = _theta(fields, rope, rules)
    partial = _partial_rotary_factor(fields, rope, head_dim) if rules.has_partial_rotary else 1.0
    num_rotated = int(head_dim * partial)
    for needed in ROPE_KINDS[kind]:
        _check_value(rope, kind, needed, num_rotated // 2)
    _check_together(rope, kind, num_rotated)
    parameters |= {"rope_type": kind, "rope_theta": theta}
    if kind in _SCALES_FROM_ORIGINAL:
        if rules.original_context is None:
            original = rope.integer("original_max_position_embeddings", max_positions, minimum=2, maximum=MAX_POSITIONS)
        else:
            original = fields.integer(
                "original_max_position_embeddings", rules.original_context, minimum=2, maximum=MAX_POSITIONS
            )
        parameters["original_max_position_embeddings"] = original
        if kind == "yarn":
            parameters["factor"] = rope.number("factor", max_positions / original, maximum=MAX_FACTOR)
    return RopeConfig(
        kind=kind, theta=theta, partial_rotary_factor=partial, max_positions=max_positions, parameters=parameters
    )


def _partial_rotary_factor(fields: ConfigFields, rope: ConfigFields, head_dim: int) -> float:
    factor = rope.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0))
    num_rotated = int(head_dim * factor)
    if not 0 < num_rotated <= head_dim or num_rotated % 2:
        raise rope.error("partial_rotary_factor", f"at most 1, and make an even part of head_dim {head_dim}")
    return factor


def _check_value(rope: ConfigFields, kind: str, name: str, num_frequencies: int) -> None:
    value = rope.values.get(name)
    if name in ("short_factor", "long_factor"):
        is_numbers = isinstance(value, list) and all(
            type(item) in (int, float) and 0 < item < MAX_FACTOR for item in value
        )
        if not is_numbers or len(value or ()) != num_frequencies:
            raise rope.error(
                name, f"a list of {num_frequencies} numbers, half the rotated channels, over 0, for {kind}"
            )
    elif value is None:
        raise rope.error(name, f"a number for rope_type {kind}")
    else:
        rope.number(name, 1.0, maximum=MAX_FACTOR)


def _theta(fields: ConfigFields, rope: ConfigFields, rules: RopeRules) -> float:
    """The base, whose powers are the frequencies; of 1 and less they would all be alike, or grow."""
    theta = rope.number("rope_theta", fields.number("rope_theta", rules.theta, maximum=MAX_THETA), maximum=MAX_THETA)
    if theta <= 1:
        raise (rope if "rope_theta" in rope.values else fields).error("rope_theta", "a number over 1")
    return theta


def _check_together(rope: ConfigFields, kind: str, num_rotated: int) -> None:
    """What a kind cannot compute with, and its optional numbers."""
    for name in ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
        value = rope.values.get(name)
        if value is not None and value != 0:
            rope.number(name, 1.0, maximum=MAX_FACTOR)
    if kind == "llama3" and rope.values["low_freq_factor"] >= rope.values["high_freq_factor"]:
        raise rope.error("high_freq_factor", f"over low_freq_factor, {rope.values['low_freq_factor']}")
    if kind == "dynamic" and num_rotated < 4:
        raise rope.error("rope_type", "another kind for heads that rotate two channels")
