"""Numbers of bytes are written for people."""

import pytest

from models.checkpoint.byte_text import byte_text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (812, "812 B"), (4_100, "4.1 kB"), (7_530_000_000, "7.53 GB"), (10**16, "10,000 TB")],
)
def test_bytes_are_written_for_people(num_bytes: int, text: str) -> None:
    assert byte_text(num_bytes) == text
