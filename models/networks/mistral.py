"""Mistral 0.1 to 0.3 and Nemo: a Llama, whose every layer slides where the configuration has a window."""

from models.networks.decoder import DenseDecoder


class MistralDecoder(DenseDecoder):
    """The body of every `MistralFor...` checkpoint."""
