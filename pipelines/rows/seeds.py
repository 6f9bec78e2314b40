"""The seed of a row: the same whatever unit, machine or attempt computes it."""

import hashlib


def row_seed(job_seed: int, relative_path: str, row_number: int) -> int:
    """A seed from 0 to 2**63 - 1, from the job's seed, the file's path relative to the input root, and the row's number in that file."""
    key = f"{job_seed}\0{row_number}\0{relative_path}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 1
