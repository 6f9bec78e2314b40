"""When a library's function is used, and what is said where it is not."""

import logging
from collections.abc import Callable

import pytest
import torch

from models.layers.kernels.agreement import agrees, chosen

ONES = torch.ones(3, 5)


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def fails(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("could not create a primitive")


LIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "off by 0.5 of the largest": lambda x: x * 3,
    "off by nan of the largest": lambda x: x * torch.nan,
    "off by inf of the largest": lambda x: x[:, :4] * 2,
    "fails on this machine (could not create a primitive)": fails,
}


@pytest.mark.parametrize("said", list(LIES))
def test_what_disagrees_is_replaced_and_one_line_says_so(
    said: str, caplog: pytest.LogCaptureFixture, fresh_kernels: None
) -> None:
    for _ in range(3):
        found = chosen("the product", torch.float32, library=LIES[said], plain=double, samples=[(ONES,)])
        assert found is double
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("the product in float32 ")
    assert said in record.getMessage()


def test_another_dtype_is_said_apart(caplog: pytest.LogCaptureFixture, fresh_kernels: None) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        assert not agrees("the product", dtype, library=fails, plain=double, samples=[(ONES,)])
    assert len(caplog.records) == 2


def test_every_sample_has_to_agree(fresh_kernels: None) -> None:
    samples = [(torch.ones(rows, 5),) for rows in (1, 3, 33)]
    assert not agrees("it", torch.float32, library=lambda x: x * (2 + (len(x) == 33)), plain=double, samples=samples)


def test_rounding_is_no_disagreement(caplog: pytest.LogCaptureFixture, fresh_kernels: None) -> None:
    rounded = chosen(
        "it", torch.bfloat16, library=lambda x: (x * 2).bfloat16(), plain=double, samples=[(ONES * 1.2345,)]
    )
    assert rounded(ONES).dtype == torch.bfloat16
    assert not caplog.records


def test_what_is_no_tensor_is_read_as_one(fresh_kernels: None) -> None:
    def codes(x: torch.Tensor) -> tuple[torch.Tensor, float]:
        return x * 2, 3.0

    found = chosen(
        "it", torch.float32, library=codes, plain=codes, samples=[(ONES,)], read=lambda codes, x: codes[0] - x
    )
    assert found is codes
