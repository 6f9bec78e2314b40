"""Qwen2 and Qwen2.5 (dense): the shared decoder, with a bias on query, key and value projections and none on the output's."""

from models.networks.decoder import DenseDecoder


class Qwen2Decoder(DenseDecoder):
    """The body of every `Qwen2For...` checkpoint."""

    @property
    def has_output_bias(self) -> bool:
        return False
