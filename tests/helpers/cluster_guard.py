"""The marker `cluster` stays true: a test without it that would start Ray, a service or a run fails, and is told what it lacks.

`make quick` leaves out what has the marker, so a test that forgot it would make that loop slow, and need what it promises to do
without. Every process that Python starts is announced by an audit event; the servers of a Ray cluster are such processes.
"""

import os
import re
import sys
from collections.abc import Generator, Iterable
from typing import Any

import pytest

STARTS_A_CLUSTER = re.compile(
    r"/gcs_server\b|/raylet\b|\bray start\b|\bimport ray\b|(?:-m jobs|\bmillrace) (?:run|serve|submit|demo|bench)\b"
)
"""Command lines: Ray's two servers, Ray's command, a script that imports Ray, and the commands of ours that may connect to it."""
MAY_START_ANYTHING = ("cluster", "faults", "benchmark")


def uses_shared_cluster(item: pytest.Item) -> bool:
    """Whether a test runs on the cluster that all such tests of a process share.

    Raises:
        pytest.UsageError: The marker says neither that nor that the test starts what it needs.
    """
    marker = item.get_closest_marker("cluster")
    if marker is None:
        return False
    if marker.kwargs or marker.args not in ((), ("own",)):
        raise pytest.UsageError(f'{item.nodeid}: write cluster or cluster("own"), not {marker}')
    return not marker.args


class ClusterGuard:
    """A plugin of pytest. An audit hook cannot be taken off, so a process has one guard."""

    def __init__(self) -> None:
        self._guarded: pytest.Item | None = None
        self._complaint: str | None = None
        sys.addaudithook(self._audit)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        may_start = any(item.get_closest_marker(name) for name in MAY_START_ANYTHING)
        self._guarded, self._complaint = None if may_start else item, None
        try:
            return (yield)
        finally:
            self._guarded = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, None, None]:
        """Fails the test even where the code under test swallowed the refusal."""
        try:
            yield
        finally:
            if self._complaint is not None:
                raise pytest.fail.Exception(self._complaint, pytrace=False) from None

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "subprocess.Popen" or self._guarded is None:
            return
        found = STARTS_A_CLUSTER.search(command_line(arguments[1]))
        if found is not None:
            self._complaint = complaint(self._guarded.nodeid, found.group())
            pytest.fail(self._complaint, pytrace=False)


def command_line(command: str | bytes | os.PathLike[str] | Iterable[str | bytes | os.PathLike[str]]) -> str:
    """A command in one line, however `subprocess` was given it."""
    words = [command] if isinstance(command, str | bytes | os.PathLike) else command
    return " ".join(map(os.fsdecode, words))


def complaint(nodeid: str, started: str) -> str:
    """What a test is told that starts what it may not."""
    return (
        f"{nodeid} starts a process ({started.strip('/')}) that belongs to Ray or may start it, and has no marker: write "
        "pytest.mark.cluster for a test on the shared cluster, "
        'pytest.mark.cluster("own") for one that starts what it needs itself'
    )
