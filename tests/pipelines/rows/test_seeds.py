from hypothesis import given
from hypothesis import strategies as st

from pipelines.rows.seeds import row_seed


def test_a_seed_never_changes() -> None:
    assert row_seed(0, "a.parquet", 0) == 7054246448551598956
    assert row_seed(7, "deep/bücher.jsonl", 12345) == row_seed(7, "deep/bücher.jsonl", 12345)


def test_job_seed_path_and_row_each_change_it() -> None:
    seeds = {row_seed(job, path, row) for job in (0, 1, 11) for path in ("a", "b") for row in (0, 1, 11)}
    assert len(seeds) == 3 * 2 * 3


@given(st.integers(), st.text(), st.integers(0, 2**62))
def test_every_seed_fits_63_bits(job_seed: int, path: str, row: int) -> None:
    assert 0 <= row_seed(job_seed, path, row) < 2**63


def test_a_path_that_is_no_unicode_has_a_seed() -> None:
    assert row_seed(0, "caf\udce9.parquet", 0) >= 0
