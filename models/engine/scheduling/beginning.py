"""What requests in flight begin with in common: the instructions of a job, mostly.

Nobody tells which requests are of one job: those are that begin with the same block. Integers
only.
"""

from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True, eq=False)
class Beginning:
    """What `num_live` requests in flight begin with, of `num_seen` since the first of them came:
    `token_ids`, which are whole blocks. Of these, `blocks` are held, and the row of the state that
    is kept at the end of the prefix `reserved`, if one is."""

    token_ids: tuple[int, ...]
    block_size: int
    num_live: int = 0
    num_seen: int = 0
    blocks: list[int] = field(default_factory=list)
    reserved: int | None = None

    @property
    def num_blocks(self) -> int:
        return len(self.token_ids) // self.block_size

    @property
    def is_common(self) -> bool:
        """Whether it is of more than one request."""
        return self.num_seen > 1

    def meet(self, token_ids: tuple[int, ...]) -> None:
        """Shortens it to what it has in common with a prompt."""
        known, size = self.token_ids, self.block_size
        if token_ids[: len(known)] != known:
            places = range(0, len(known), size)
            end = next(at for at in places if known[at : at + size] != token_ids[at : at + size])
            self.token_ids = known[:end]
