"""SmolLM3: the shared decoder as it stands; which layers go without rotation, and slide, is in the configuration."""

from models.networks.decoder import DenseDecoder


class SmolLM3Decoder(DenseDecoder):
    """The body of every `SmolLM3For...` checkpoint."""
