"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: the shared decoder, published with its projections fused already."""

from models.layers.linear import Part, fused
from models.networks.decoder import DenseDecoder


class Phi3Decoder(DenseDecoder):
    """The body of every `Phi3For...` checkpoint."""

    def qkv_parts(self, name: str) -> list[Part]:
        return fused(f"{name}.qkv_proj", super().qkv_parts(name))

    def gate_up_parts(self, name: str) -> list[Part]:
        return fused(f"{name}.gate_up_proj", super().gate_up_parts(name))
