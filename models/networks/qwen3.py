"""Qwen3 (dense): the shared decoder, with an RMS norm over each query and key head before rotation."""

from models.layers.norm import HeadNorm
from models.networks.decoder import DenseDecoder


class Qwen3Decoder(DenseDecoder):
    """The body of every `Qwen3For...` checkpoint."""

    def build_head_norm(self, name: str) -> HeadNorm:
        return HeadNorm(
            f"{name}.q_norm",
            f"{name}.k_norm",
            num_query_heads=self.query_heads[1] - self.query_heads[0],
            num_key_heads=len(self.kv_heads),
            head_dim=self.config.head_dim,
            eps=self.config.rms_norm_eps,
        )
