"""Whether a model fits where it is to be loaded; and if not, by how much, and what would."""

from collections.abc import Iterable

from models.checkpoint.byte_text import byte_text
from models.errors import ConfigError


def check_fits(needed: int, free: int, *, place: str, others: Iterable[tuple[str, int]]) -> None:
    """Compares the bytes that a shard's weights take with those that are free for it at `place`. `others` are other ways to load the
    same model, with their bytes per shard; they are looked at only if it does not fit.

    Raises:
        ConfigError: it does not fit; the text says by how much, and which of the others would.
    """
    if needed <= free:
        return
    fitting = [f"{name} ({byte_text(size)} a shard)" for name, size in others if size <= free]
    would = (
        f"with {' or '.join(fitting)} it would fit" if fitting else "no number of shards and no quantization would help"
    )
    raise ConfigError(
        f"the weights take {byte_text(needed)} a shard, and {place} has {byte_text(free)} for it: "
        f"{byte_text(needed - free)} too little; {would}"
    )


def check_positions_fit(needed: int, free: int, *, max_model_len: int) -> None:
    """Compares the bytes that the tables of a rotary embedding take while they are made with those that are free.

    Raises:
        ConfigError: they do not fit; the text says what would make them smaller.
    """
    if needed > free:
        raise ConfigError(
            f"the rotary embedding of {max_model_len:,} positions takes {byte_text(needed)} while it is made, and {byte_text(free)} are "
            "free: give a smaller max_model_len"
        )
