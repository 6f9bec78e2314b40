"""Which kind each layer of a network has, and which rotate: the rules of the published configuration classes."""

from collections.abc import Callable
from dataclasses import dataclass

from models.config.fields import ConfigFields
from models.config.types import LayerType


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """The kind of each layer, which of them rotate queries and keys, and how many keys a sliding one sees."""

    types: tuple[LayerType, ...]
    rotated: tuple[bool, ...]
    window: int | None


LayerRule = Callable[[ConfigFields, int], Layers]


def all_full(fields: ConfigFields, num_layers: int) -> Layers:
    """Every layer rotates and sees all keys."""
    del fields
    kind: LayerType = "full_attention"
    return Layers(types=(kind,) * num_layers, rotated=(True,) * num_layers, window=None)


def all_sliding(fields: ConfigFields, num_layers: int, *, default: int | None = None) -> Layers:
    """Phi-3's and Mistral's rule: a window, where there is one, is that of every layer."""
    window = fields.optional_integer("sliding_window", default)
    kind: LayerType = "full_attention" if window is None else "sliding_attention"
    return Layers(types=(kind,) * num_layers, rotated=(True,) * num_layers, window=window)


def sliding_after_full(fields: ConfigFields, num_layers: int) -> Layers:
    """Qwen2's and Qwen3's rule: with `use_sliding_window`, the first `max_window_layers` are full and the rest slide."""
    is_on = fields.boolean("use_sliding_window", default=False)
    window = fields.optional_integer("sliding_window", 4096) if is_on else None
    first_sliding = fields.integer("max_window_layers", 28, minimum=0)
    slides = [layer >= first_sliding for layer in range(num_layers)]
    return Layers(types=_layer_types(fields, slides, window), rotated=(True,) * num_layers, window=window)


def sliding_without_rope(fields: ConfigFields, num_layers: int) -> Layers:
    """SmolLM3's rule: every `no_rope_layer_interval`-th layer, or those the list marks 0, have no rotary embedding, and
    with `use_sliding_window` only they slide."""
    interval = fields.integer("no_rope_layer_interval", 4)
    listed = fields.values.get("no_rope_layers")
    rotated = [(layer + 1) % interval != 0 for layer in range(num_layers)]
    if listed is not None:
        is_usable = isinstance(listed, list) and len(listed) >= num_layers and all(mark in (0, 1) for mark in listed)
        if not is_usable:
            raise fields.error(
                "no_rope_layers", f"a list of {num_layers} numbers, 1 for a layer with rotary embedding and 0 without"
            )
        rotated = [bool(mark) for mark in listed[:num_layers]]
    is_on = fields.boolean("use_sliding_window", default=False)
    window = fields.optional_integer("sliding_window", None) if is_on else None
    types = _layer_types(fields, [not is_rotated for is_rotated in rotated], window)
    return Layers(types=types, rotated=tuple(rotated), window=window)


def _layer_types(fields: ConfigFields, slides: list[bool], window: int | None) -> tuple[LayerType, ...]:
    """An explicit list wins over the family's rule."""
    names = fields.strings("layer_types")
    if names is None:
        types: list[LayerType] = [
            "sliding_attention" if is_sliding and window is not None else "full_attention" for is_sliding in slides
        ]
        return tuple(types)
    if len(names) != len(slides):
        raise fields.error("layer_types", f"a list of num_hidden_layers ({len(slides)}) names")
    allowed: dict[str, LayerType] = {"full_attention": "full_attention", "sliding_attention": "sliding_attention"}
    if not set(names) <= set(allowed):
        raise fields.error("layer_types", f"a list of {' and '.join(allowed)}")
    if window is None and "sliding_attention" in names:
        raise fields.error("layer_types", "without sliding_attention where no sliding_window is in use")
    return tuple(allowed[name] for name in names)
