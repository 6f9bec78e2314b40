import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from models.tasks.windows import Window, cut_windows

sizes = st.integers(1, 40).flatmap(lambda room: st.tuples(st.just(room), st.integers(0, room - 1)))


@given(st.integers(0, 200), sizes)
def test_every_token_is_owned_once_by_a_window_that_holds_it(num_tokens: int, size: tuple[int, int]) -> None:
    windows = cut_windows(num_tokens, room=size[0], overlap=size[1])
    owned = [token for window in windows for token in range(window.owned_start, window.owned_end)]
    assert owned == list(range(num_tokens))
    assert all(window.start <= window.owned_start <= window.owned_end <= window.end for window in windows)


@given(st.integers(1, 200), sizes)
def test_windows_are_full_and_share_at_least_the_overlap(num_tokens: int, size: tuple[int, int]) -> None:
    room, overlap = size
    windows = cut_windows(num_tokens, room=room, overlap=overlap)
    assert {window.end - window.start for window in windows} == {min(room, num_tokens)}
    assert all(left.end - right.start >= overlap for left, right in itertools.pairwise(windows))
    assert all(left.start < right.start for left, right in itertools.pairwise(windows))


@given(st.integers(1, 200), sizes)
def test_the_window_with_the_most_context_on_its_shorter_side_owns_a_token(
    num_tokens: int, size: tuple[int, int]
) -> None:
    def context(window: Window, token: int) -> float:
        left = math.inf if window.start == 0 else token - window.start
        right = math.inf if window.end == num_tokens else window.end - 1 - token
        return min(left, right)

    windows = cut_windows(num_tokens, room=size[0], overlap=size[1])
    for owner in windows:
        for token in range(owner.owned_start, owner.owned_end):
            holders = [window for window in windows if window.start <= token < window.end]
            assert context(owner, token) == max(context(window, token) for window in holders)


def test_a_text_that_fits_is_one_window() -> None:
    assert cut_windows(5, room=5, overlap=2) == [Window(start=0, end=5, owned_start=0, owned_end=5)]


def test_no_tokens_are_no_window() -> None:
    assert cut_windows(0, room=5, overlap=2) == []
