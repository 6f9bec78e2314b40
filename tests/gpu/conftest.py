"""The tiny checkpoints of the models' tests, for tests that need a CUDA device."""

from tests.models.conftest import qwen3_checkpoint

__all__ = ["qwen3_checkpoint"]
