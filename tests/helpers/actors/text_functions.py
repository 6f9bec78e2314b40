"""What workers of a text pool are given to do in tests; imports nothing that takes time."""

import os
import time


def sleep(_: object, seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def take_memory(_: object, num_bytes: int) -> int:
    return len(bytearray(num_bytes))


def die(_: object) -> None:
    os.abort()
