"""The demo: a made-up corpus of support tickets, four tiny checkpoints trained on it, and the jobs that `millrace demo` runs."""

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
SPECS = Path(__file__).parent / "specs"
