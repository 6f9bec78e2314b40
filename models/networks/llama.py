"""Llama 1 to 3.3, and the thousands of networks published as one: the shared decoder as it stands, every layer rotated."""

from models.networks.decoder import DenseDecoder


class LlamaDecoder(DenseDecoder):
    """The body of every `LlamaFor...` checkpoint."""
