"""Long documents in overlapping windows of tokens: where to cut, and which window answers for which token.

Nothing of a document is left out: every token is in a window, and where windows overlap the one in which a token has the most context
on its shorter side answers for it. So a span across a border is seen whole by the window whose tokens it is put together from.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Tokens `start` to `end` of a document, of which it answers for `owned_start` to `owned_end`; all ends exclusive."""

    start: int
    end: int
    owned_start: int
    owned_end: int


def cut_windows(num_tokens: int, *, room: int, overlap: int) -> list[Window]:
    """Cuts `num_tokens` tokens into windows of `room` tokens, neighbours sharing `overlap`; one window if all fit, none for no tokens.

    The last window is moved back until it is full, so that its tokens have as much context as any other's.
    """
    if num_tokens == 0:
        return []
    assert 0 <= overlap < room, "a window must be longer than what it shares"
    last_start = max(num_tokens - room, 0)
    starts = [*range(0, last_start, room - overlap), last_start]
    ends = [min(start + room, num_tokens) for start in starts]
    borders = [0, *((end + start) // 2 for end, start in zip(ends[:-1], starts[1:], strict=True)), num_tokens]
    return [
        Window(start=start, end=end, owned_start=border, owned_end=next_border)
        for start, end, border, next_border in zip(starts, ends, borders[:-1], borders[1:], strict=True)
    ]
