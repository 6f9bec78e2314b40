"""What takes long, said at the end of every run of the tests: a loop that people wait for grows unseen otherwise."""

from collections import defaultdict
from collections.abc import Mapping

import pytest

TEST_CEILING_S = 20.0
MODULE_CEILING_S = 60.0


class Durations:
    """A plugin of pytest: sums what each test took, its fixtures included, and reports what is over a ceiling."""

    def __init__(self) -> None:
        self._tests: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tests[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        modules: dict[str, float] = defaultdict(float)
        for name, seconds in self._tests.items():
            modules[name.partition("::")[0]] += seconds
        said = [
            *over(modules, MODULE_CEILING_S, "module", "modules"),
            *over(self._tests, TEST_CEILING_S, "test", "tests"),
        ]
        if said:
            terminalreporter.section("what takes long")
            for line in said:
                terminalreporter.line(line)


def over(durations: Mapping[str, float], ceiling_s: float, one: str, many: str) -> list[str]:
    """A line that counts what is over a ceiling, and a line for each, the longest first; none if nothing is."""
    slow = sorted(((seconds, name) for name, seconds in durations.items() if seconds > ceiling_s), reverse=True)
    if not slow:
        return []
    total = sum(durations.values())
    share = sum(seconds for seconds, _ in slow)
    head = f"{len(slow)} {one if len(slow) == 1 else many} over {ceiling_s:.0f} s: {share:.0f} of {total:.0f} s"
    return [head, *(f"{seconds:8.1f} s  {name}" for seconds, name in slow)]
