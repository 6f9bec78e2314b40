import pytest

from pipelines.errors import TaskError
from pipelines.tasks.windows import WindowSize


def test_defaults_are_the_whole_model_and_a_quarter_shared() -> None:
    assert WindowSize.of(window=None, stride=None, max_model_len=100) == WindowSize(window=100, stride=25)


@pytest.mark.parametrize(
    ("window", "stride", "place"),
    [(101, None, "task.window"), (0, None, "task.window"), (8, 8, "task.stride"), (8, -1, "task.stride")],
)
def test_sizes_that_cannot_be_used_are_named(window: int, stride: int | None, place: str) -> None:
    with pytest.raises(TaskError) as caught:
        WindowSize.of(window=window, stride=stride, max_model_len=100)
    assert caught.value.place == place
