"""`make isa` runs what this machine can do, says what it cannot, and takes no setting's word for its effect."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import isa

ROOT = Path(__file__).parents[1]
(DEFAULT,) = [setting for setting in isa.SETTINGS if setting.name == "ATEN_CPU_CAPABILITY=default"]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that were started; none of them is."""
    started: list[list[str]] = []

    def start(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        started.append(command)
        said = DEFAULT.prints if "-c" in command else ""
        return subprocess.CompletedProcess(command, 0, stdout=said, stderr="")

    monkeypatch.setattr(subprocess, "run", start)
    return started


@pytest.mark.parametrize("setting", [each for each in isa.SETTINGS if each.needs], ids=lambda setting: setting.name)
def test_what_the_processor_cannot_do_is_skipped_and_said(
    setting: isa.Setting, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"sse2": True, setting.needs[0]: False})
    assert isa.run(setting, []) == f"skipped: this processor has no {', '.join(setting.needs)}"
    assert commands == []


def test_a_skipped_setting_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"sse2": True})
    monkeypatch.setattr("sys.argv", ["isa"])
    assert isa.main() == 0
    said = capsys.readouterr().out
    assert said.count("skipped: this processor has no ") == 4
    assert said.count("passed in ") == 1
    assert [command[1:3] for command in commands] == [["-c", DEFAULT.program], ["-m", "pytest"]]


def test_a_setting_without_effect_is_a_failure(commands: list[list[str]]) -> None:
    said = isa.run(replace(DEFAULT, prints="AVX9"), [])
    assert said == "failed: the setting took no effect; asked for 'AVX9', found 'DEFAULT'"
    assert not any("pytest" in command for command in commands)


def test_every_numeric_test_is_there() -> None:
    assert [name for name in isa.NUMERIC if not (ROOT / name).exists()] == []
