"""Specs as people write them, in files."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.logs import PACKAGES

SpecWriter = Callable[[str], Path]

GENERATE = """\
name: label-tickets
model:
  path: models/qwen3
task:
  kind: generate
  prompt: "Summarise: {{ body }}"
  sampling:
    max_tokens: 64
input:
  paths: ["tickets/*.parquet"]
output:
  path: out/label-tickets
"""


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """A command sets up logging for its whole process, which other tests share."""
    loggers = [logging.getLogger(package) for package in PACKAGES]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers


@pytest.fixture
def write_spec(tmp_path: Path) -> SpecWriter:
    """Writes `spec.yaml` and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def generate_yaml() -> str:
    """A generate job of the required keys and max_tokens; `max_tokens` stands on line 8."""
    return GENERATE
