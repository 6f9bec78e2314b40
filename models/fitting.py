"""Whether a model fits where it is to be loaded; and if not, by how much, and what would."""

from collections.abc import Iterable

from models.errors import ConfigError


def check_fits(needed: int, free: int, *, place: str, others: Iterable[tuple[str, int]]) -> None:
    """Compares the bytes that a shard's weights take with those that are free for it at `place`. `others` are other ways to load the
    same model, with their bytes a shard; they are looked at only if it does not fit.

    Raises:
        ConfigError: it does not fit; the text says by how much, and which of the others would.
    """
    if needed <= free:
        return
    fitting = [f"{name} ({gigabytes(size)} a shard)" for name, size in others if size <= free]
    would = (
        f"with {' or '.join(fitting)} it would fit" if fitting else "no number of shards and no quantization would help"
    )
    raise ConfigError(
        f"the weights take {gigabytes(needed)} a shard, and {place} has {gigabytes(free)} for it: "
        f"{gigabytes(needed - free)} too little; {would}"
    )


def gigabytes(num_bytes: int) -> str:
    """Bytes for people, in powers of 1000."""
    return f"{num_bytes / 1e9:,.3g} GB"
