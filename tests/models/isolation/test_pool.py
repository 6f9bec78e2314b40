"""Isolated work: what it answers, and what becomes of work that takes too much."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from models.errors import EngineError, OverrunError, TemplateError
from models.isolation import IsolatedPool, ProcessLimits, step
from tests.helpers.models import isolation_work as work

MIB = 1 << 20
LIMITS = ProcessLimits(memory_bytes=64 * MIB, step_s=30.0)


@pytest.fixture(scope="module")
def pool() -> Iterator[IsolatedPool]:
    made = IsolatedPool(partial(work.context, 40), limits=LIMITS, num_workers=2)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[IsolatedPool]:
    """A step may take half a second of the clock."""
    made = IsolatedPool(partial(work.context, 40), limits=ProcessLimits(memory_bytes=64 * MIB, step_s=0.5))
    made.start()
    yield made
    made.close()


def test_a_pool_is_settled_once_its_context_is_made_or_has_failed(
    pool: IsolatedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.isolation.processes._CLOSE_S", 0.1)  # the slow one has to be killed
    pool.start()
    assert pool.is_settled(0)
    slow = IsolatedPool(work.hang, limits=LIMITS)
    assert not slow.is_settled(0.01)
    slow.close()
    failing = IsolatedPool(work.refuse, limits=LIMITS)
    assert failing.is_settled(60)
    for _ in range(2):
        with pytest.raises(TemplateError, match="no context"):
            failing.start()
        assert failing.is_settled(0)
    failing.close()


def test_calls_get_the_context_and_their_arguments(pool: IsolatedPool) -> None:
    assert pool.run(work.add, 2) == 42
    assert pool.run(work.pid) not in (os.getpid(), None)


def test_an_exception_of_ours_comes_back_as_it_is(pool: IsolatedPool) -> None:
    with pytest.raises(TemplateError, match="broken at its line 3"):
        pool.run(work.fail, TemplateError("broken at its line 3"))
    with pytest.raises(RuntimeError, match="UnpicklableError: so it was"):
        pool.run(work.fail_unpicklable)
    assert pool.run(work.add, 1) == 41


def test_more_memory_than_the_limit_is_an_overrun_and_the_next_call_is_served(pool: IsolatedPool) -> None:
    assert pool.run(work.allocate, 16 * MIB) == 16 * MIB
    with pytest.raises(OverrunError, match="64 MiB of memory") as overrun:
        pool.run(work.allocate, 512 * MIB)
    assert (overrun.value.reason, overrun.value.step) == ("memory", None)
    assert pool.run(work.add, 1) == 41


def test_a_library_in_rust_that_gets_no_memory_is_an_overrun_of_memory(pool: IsolatedPool) -> None:
    with pytest.raises(OverrunError) as overrun:
        pool.run(work.explode_in_rust)
    assert overrun.value.reason == "memory"


def test_memory_that_a_worker_keeps_is_not_missing_in_the_next_call(pool: IsolatedPool) -> None:
    """Each call keeps 20 MiB for good: the fourth would not fit in a worker that had served the first three."""
    assert [pool.run(work.keep, 20 * MIB) for _ in range(8)] == [None] * 8


def test_a_worker_is_kept_that_takes_addresses_and_no_memory(pool: IsolatedPool) -> None:
    """As allocators and threads do: what counts is what has been written to."""
    workers = {pool.run(work.reserve, 24 * MIB) for _ in range(6)}
    assert len(workers) <= 2


def test_more_time_than_the_limit_is_an_overrun_at_its_step(hasty: IsolatedPool) -> None:
    begun = time.monotonic()
    with pytest.raises(OverrunError, match=r"more than 0.5 s$") as overrun:
        hasty.run(work.spin_at, [3, 7], 60.0)
    assert (overrun.value.reason, overrun.value.step) == ("time", 7)
    assert 0.5 <= time.monotonic() - begun < 20
    assert hasty.run(work.add, 1) == 41


def test_many_steps_may_take_longer_than_one(hasty: IsolatedPool) -> None:
    assert hasty.run(work.sleep_in_steps, 8, 0.2) == 8


@pytest.mark.slow
def test_a_step_may_ask_for_more_time(hasty: IsolatedPool) -> None:
    assert hasty.run(work.sleep_in_one_step, 1.2, 60.0) == 1.2
    with pytest.raises(OverrunError, match=r"more than 0.7 s$"):
        hasty.run(work.sleep_in_one_step, 60.0, 0.2)


@pytest.mark.slow
def test_computing_is_limited_apart_from_the_clock() -> None:
    pool = IsolatedPool(partial(work.context, 0), limits=ProcessLimits(memory_bytes=64 * MIB, step_cpu_s=0.5))
    try:
        assert pool.run(work.sleep_in_one_step, 1.5, 0.0) == 1.5
        with pytest.raises(OverrunError, match=r"0\.5 s of computing") as overrun:
            pool.run(work.spin_at, [5], 60.0)
        assert overrun.value.step == 5
    finally:
        pool.close()


@pytest.mark.parametrize("how", ["kill", "exit", "panic"])
def test_a_worker_that_dies_is_told_and_replaced(pool: IsolatedPool, how: str) -> None:
    with pytest.raises(OverrunError) as overrun:
        pool.run(work.die, how)
    assert (overrun.value.reason, overrun.value.step) == ("crash", 4)
    expected = {"kill": "signal 9", "exit": "status 3", "panic": "PanicException"}[how]
    assert expected in str(overrun.value)
    assert pool.run(work.add, 1) == 41


def test_a_worker_that_died_while_it_had_nothing_to_do_costs_no_call(pool: IsolatedPool) -> None:
    for _ in range(3):
        dead = pool.run(work.pid)
        os.kill(dead, signal.SIGKILL)
        while work.is_running(dead):
            time.sleep(0.01)
        assert pool.run(work.pid) != dead


def test_a_server_that_is_killed_is_replaced(hasty: IsolatedPool) -> None:
    server, worker = hasty.run(work.parent_pid), hasty.run(work.pid)
    os.kill(server, signal.SIGKILL)
    while work.is_running(worker):  # ends with its server
        time.sleep(0.01)
    assert hasty.run(work.parent_pid) != server


def test_calls_run_side_by_side_in_as_many_workers_as_there_are(pool: IsolatedPool) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: pool.run(work.pid_after, 0.2), range(8)))
    assert len(set(answers)) <= 2


def test_a_call_that_is_cancelled_ends_its_worker_and_waits_for_nothing() -> None:
    async def cancelled() -> tuple[int, float]:
        pool = IsolatedPool(partial(work.context, 0), limits=LIMITS)
        try:
            first = await pool.run_async(work.pid)
            running = asyncio.create_task(pool.run_async(work.spin_at, [0], 600.0))
            queued = asyncio.create_task(pool.run_async(work.spin_at, [0], 600.0))
            await asyncio.sleep(0.3)
            begun = time.monotonic()
            running.cancel()
            queued.cancel()
            await asyncio.gather(running, queued, return_exceptions=True)
            assert await pool.run_async(work.add, 1) == 1
            return first, time.monotonic() - begun
        finally:
            pool.close()

    first, seconds = asyncio.run(cancelled())
    assert seconds < 20
    assert not work.is_running(first)


def test_a_context_that_cannot_be_made_is_told_to_every_caller() -> None:
    pool = IsolatedPool(work.refuse, limits=LIMITS)
    try:
        for _ in range(2):
            with pytest.raises(TemplateError, match="there is no context"):
                pool.run(work.add, 1)
    finally:
        pool.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "reason"), [(partial(work.allocate, None, 512 * MIB), "memory"), (work.hang, "time")]
)
def test_a_context_that_takes_too_much_is_an_overrun(setup: object, reason: str) -> None:
    limits = ProcessLimits(memory_bytes=MIB, step_s=1.0, setup_s=3.0, setup_memory_bytes=128 * MIB)
    pool = IsolatedPool(setup, limits=limits)  # type: ignore[arg-type]
    try:
        with pytest.raises(OverrunError) as overrun:
            pool.start()
        assert overrun.value.reason == reason
    finally:
        pool.close()


def test_closing_ends_every_process_and_every_call() -> None:
    pool = IsolatedPool(partial(work.context, 0), limits=LIMITS, num_workers=2)
    server, worker = pool.run(work.parent_pid), pool.run(work.pid)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            pool.run(work.spin_at, [0], 600.0)
        except EngineError as error:
            errors.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    time.sleep(0.3)
    pool.close()
    for caller in callers:
        caller.join(timeout=60)
    assert len(errors) == 3
    assert not work.is_running(server)
    assert not work.is_running(worker)
    with pytest.raises(EngineError, match="closed"):
        pool.run(work.add, 1)


def test_nothing_outlives_a_caller_that_is_killed() -> None:
    holder = work.start_holder()
    try:
        assert holder.stdout is not None
        pids = [int(pid) for pid in holder.stdout.readline().split()]
        assert len(pids) == 2
        holder.kill()
        holder.wait()
        end = time.monotonic() + 60
        while any(map(work.is_running, pids)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not any(map(work.is_running, pids))
    finally:
        holder.kill()
        holder.communicate()


def test_workers_know_no_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the secret")
    pool = IsolatedPool(partial(work.context, 0), limits=LIMITS)
    try:
        assert "the secret" not in pool.run(work.environment)
    finally:
        pool.close()


def test_step_does_nothing_outside_of_a_worker() -> None:
    step(7)


def test_limits_need_one_of_time() -> None:
    with pytest.raises(ValueError, match="step_s or step_cpu_s"):
        ProcessLimits(memory_bytes=MIB)


def test_a_pool_that_is_closed_twice_closes_no_descriptor_that_others_have_by_then() -> None:
    made = IsolatedPool(partial(work.context, 40), limits=LIMITS)
    assert made.run(work.add, 1) == 41
    made.close()
    others = [os.memfd_create("others") for _ in range(16)]  # they get the numbers that were given back
    made.close()
    assert all(os.fstat(each).st_size == 0 for each in others)
    for each in others:
        os.close(each)
