"""Helium: the shared decoder with rotation of neighbouring channels, norms that round last, and no bias on `o_proj`."""

from models.layers.norm import RMSNorm
from models.layers.rotary.rotation import Rotary
from models.networks.decoder import DenseDecoder


class HeliumDecoder(DenseDecoder):
    """The body of every `HeliumFor...` checkpoint."""

    @property
    def has_output_bias(self) -> bool:
        return False

    def build_norm(self, name: str) -> RMSNorm:
        return RMSNorm(name, self.config.hidden_size, self.config.rms_norm_eps, rounds_last=True)

    def build_rotary(self) -> Rotary:
        return Rotary(self.config.rope, self.config.head_dim, self.options.max_model_len, is_interleaved=True)
