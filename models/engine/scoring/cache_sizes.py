"""How large the cache of one-pass work is, from the budget of a pass and what a token and a
sequence take."""

from dataclasses import dataclass

CACHE_PER_TOKEN = 4
"""Places for each token of a pass's budget, and as many again for states, twice, where there are
some."""
MAX_DEPTH = 4
"""Beginnings with states that lie within each other."""
MIN_SLOTS = 2 * MAX_DEPTH


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSizes:
    """Places of tokens, slots of states, and the bytes of all of them; more only where a call has
    longer sequences."""

    num_places: int
    num_slots: int
    num_bytes: int

    @classmethod
    def of(cls, *, budget: int, token_bytes: int, state_bytes: int, hidden_bytes: int) -> "CacheSizes":
        """For passes of `budget` tokens, each of which takes `token_bytes` of keys and values and
        `hidden_bytes` of a hidden state; a sequence takes `state_bytes`, 0 where the network keeps
        none."""
        num_places = CACHE_PER_TOKEN * budget
        state_places = -(-state_bytes // max(1, token_bytes))
        num_slots = max(MIN_SLOTS, 2 * num_places // state_places) if state_places else 0
        num_bytes = num_places * (token_bytes + hidden_bytes) + num_slots * state_bytes
        return cls(num_places=num_places, num_slots=num_slots, num_bytes=num_bytes)
