"""The cache of one-pass work: keys and values by token, states by sequence, and the beginnings
that are kept in it for later calls.

A token has a place and a sequence's state a slot. Each is held by whoever computes with it, and
kept for a beginning that may be asked for again; what is neither is free. How much there is at
most, follows from the budget of tokens of a pass and the longest sequence; memory is reserved when
it is first used.

When room is needed, beginnings go that no call of the last few had; where there are none, the one
that was used last. Every call asks for its beginnings in the order of their tokens, so that the
one just used is the last to come again, if the next call has the same ones. Were the one used
longest ago to go, nothing would be found of a few more than there is room for.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.engine import caches
from models.engine.scoring.cache_sizes import CacheSizes
from models.layers.attention.attention import IntArray
from models.layers.state import Cache, StateCache
from models.loading.load import LoadedModel

MAX_KEPT = 512
STALE_CALLS = 4
"""Calls without a beginning, after which it goes before those that calls have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What a beginning is known by: its tokens as bytes, where it and those within it end, which
    all are passes of their own, the rope regime, and whether hidden states are kept with it. Equal
    ones have the same numbers, to the last bit."""

    tokens: bytes
    ends: tuple[int, ...]
    regime: int
    has_hidden: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A beginning that is kept: the places of its tokens [T], and the slot of the state behind
    them."""

    places: IntArray
    slot: int | None


class PrefixCache:
    """The cache of one model, used by one thread."""

    def __init__(self, loaded: LoadedModel, budget: int) -> None:
        """For passes of `budget` tokens."""
        self._loaded, self._budget = loaded, budget
        self._specs = loaded.model.decoder.cache_specs if loaded.config.is_causal else []
        self._token_bytes = caches.token_bytes(self._specs, loaded.dtype)
        self._hidden_bytes = loaded.config.hidden_size * loaded.dtype.itemsize
        self._state_bytes = caches.state_bytes(self._specs, loaded.dtype)
        self.has_states = self._state_bytes > 0
        sizes = CacheSizes.of(
            budget=budget,
            token_bytes=self._token_bytes,
            state_bytes=self._state_bytes,
            hidden_bytes=self._hidden_bytes,
        )
        self._limit = self._least = sizes.num_places
        self._num_calls = 0
        self._resize(sizes.num_places, sizes.num_slots)

    def _resize(self, num_places: int, num_slots: int) -> None:
        self.caches: list[Cache] = []
        self._hidden: torch.Tensor | None = None
        self._kept: OrderedDict[Key, Kept] = OrderedDict()  # the one used last at the end
        self._last_calls: dict[Key, int] = {}  # the numbers of those that had them
        self._held_places, self._kept_places = np.zeros((2, num_places), dtype=np.int64)
        self._held_slots, self._kept_slots = np.zeros((2, num_slots), dtype=np.int64)

    @property
    def num_places(self) -> int:
        return self._held_places.size if self._specs else 0

    @property
    def num_slots(self) -> int:
        return self._held_slots.size

    @property
    def num_bytes(self) -> int:
        """What it may take: keys, values and hidden states of tokens, and states of sequences."""
        return self.num_places * (self._token_bytes + self._hidden_bytes) + self.num_slots * self._state_bytes

    @property
    def free_places(self) -> int:
        """How many the call may still hold, whether something is kept there or not."""
        return self._limit - int(np.count_nonzero(self._held_places))

    @property
    def free_slots(self) -> int:
        return int(np.count_nonzero(self._held_slots == 0))

    def begin(self, longest: int) -> None:
        """Begins a call: nothing is held, and a sequence of `longest` tokens has room with a pass
        beside it. Where the cache has to grow for that, or an earlier call failed while it held
        something, what was kept is forgotten."""
        self._num_calls += 1
        self._limit = max(self._least, longest + self._budget)
        num_places = max(self._held_places.size, -(-self._limit // self._budget) * self._budget)
        if num_places > self._held_places.size or self._held_places.any():
            self._resize(num_places, self.num_slots)

    def take(self, num_tokens: int, before: IntArray | None) -> tuple[IntArray, int | None]:
        """The places of a sequence: those `before` and `num_tokens` more, all held; and a slot,
        where there are states. There must be room for them."""
        self._make_room(num_tokens)
        if not self.caches:
            self.caches = self._allocated()
        new = np.flatnonzero((self._held_places == 0) & (self._kept_places == 0))[:num_tokens]
        places = new if before is None else np.concatenate([before, new])
        slot = None
        if self.has_states:
            slot = int(np.flatnonzero((self._held_slots == 0) & (self._kept_slots == 0))[0])
        self.hold(places, slot)
        return places, slot

    def hold(self, places: IntArray, slot: int | None) -> None:
        """Neither these places nor the slot are given out before they are released."""
        self._held_places[places] += 1
        if slot is not None:
            self._held_slots[slot] += 1

    def release(self, places: IntArray, slot: int | None) -> None:
        """The opposite of `hold`."""
        self._held_places[places] -= 1
        if slot is not None:
            self._held_slots[slot] -= 1

    def copy_states(self, pairs: Sequence[tuple[int, int | None]]) -> None:
        """Copies the states of slots to other slots."""
        if not pairs or not self.has_states:
            return
        sources, targets = (torch.tensor(side, device=self._loaded.device) for side in zip(*pairs, strict=True))
        for cache in self.caches:
            if isinstance(cache, StateCache):
                cache.copy_rows(sources, targets)

    def kept(self, key: Key) -> Kept | None:
        """The beginning with this key, if it is kept; it is then the one used last."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            self._last_calls[key] = self._num_calls
        return found

    def keep(self, key: Key, kept: Kept) -> None:
        """Keeps a beginning that is held and was not kept, as the one used last, and has another
        one go if they are too many."""
        if len(self._kept) == MAX_KEPT:
            self._drop(self._least_wanted(self._unheld() or list(self._kept)))
        self._kept[key], self._last_calls[key] = kept, self._num_calls
        self._kept_places[kept.places] += 1
        if kept.slot is not None:
            self._kept_slots[kept.slot] += 1

    def put_hidden(self, places: IntArray, hidden: torch.Tensor) -> None:
        """Keeps the final hidden states [n, H] of tokens with their keys and values."""
        if self._hidden is None:
            self._hidden = hidden.new_empty(self._held_places.size, hidden.shape[1])
        self._hidden.index_copy_(0, torch.from_numpy(places).to(hidden.device), hidden)

    def hidden(self, places: IntArray) -> torch.Tensor:
        """Those that were put there [n, H]."""
        assert self._hidden is not None
        return self._hidden.index_select(0, torch.from_numpy(places).to(self._hidden.device))

    def tensors(self) -> list[torch.Tensor]:
        """All that it has taken by now."""
        taken = [] if self._hidden is None else [self._hidden]
        for cache in self.caches:
            taken += [cache.conv, cache.scan] if isinstance(cache, StateCache) else [cache.k, cache.v]
        return taken

    def check_idle(self) -> None:
        """Raises AssertionError if something is held, or counted as kept that is not."""
        assert not self._held_places.any()
        assert not self._held_slots.any()
        places, slots = np.zeros_like(self._kept_places), np.zeros_like(self._kept_slots)
        for kept in self._kept.values():
            places[kept.places] += 1
            if kept.slot is not None:
                slots[kept.slot] += 1
        assert (places == self._kept_places).all()
        assert (slots == self._kept_slots).all()

    def _make_room(self, num_tokens: int) -> None:
        def is_short() -> bool:
            num_free = np.count_nonzero((self._held_places == 0) & (self._kept_places == 0))
            has_slot = not self.has_states or ((self._held_slots == 0) & (self._kept_slots == 0)).any()
            return bool(num_free < num_tokens or not has_slot)

        while is_short():
            self._drop(self._least_wanted(self._unheld()))

    def _unheld(self) -> list[Key]:
        return [key for key, kept in self._kept.items() if not self._is_held(kept)]

    def _least_wanted(self, keys: Sequence[Key]) -> Key:
        """The one to go of some that are kept, in the order in which they were used."""
        is_stale = self._num_calls - self._last_calls[keys[0]] > STALE_CALLS
        return keys[0] if is_stale else keys[-1]

    def _is_held(self, kept: Kept) -> bool:
        """Whether something of it is needed now: its state, which nobody behind it needs any more once they have their own; or,
        without states, its tokens."""
        held = self._held_places[kept.places[-1]] if kept.slot is None else self._held_slots[kept.slot]
        return bool(held)

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key)
        del self._last_calls[key]
        self._kept_places[kept.places] -= 1
        if kept.slot is not None:
            self._kept_slots[kept.slot] -= 1

    def _allocated(self) -> list[Cache]:
        return caches.allocate(
            self._specs,
            self._loaded.backend,
            num_blocks=self._held_places.size,
            block_size=1,
            dtype=self._loaded.dtype,
            device=self._loaded.device,
            num_slots=self._held_slots.size,
        )
