"""The tiny checkpoints of the models' tests, for tests that need a CUDA device."""

from tests.models.conftest import family_checkpoint, qwen3_checkpoint, zamba2_checkpoint

__all__ = ["family_checkpoint", "qwen3_checkpoint", "zamba2_checkpoint"]
