"""The most that a config.json may ask for. The author of a checkpoint, who may be anyone, chose
its numbers, and a network is built from them.

Generous by about ten times or more over what is published; what a network of such sizes really takes is compared with its files
(`models.config.agreement`) and with the memory that is free (`models.loading.fitting`).
"""

MAX_INTEGER = 2**31 - 1
"""Of whatever has no limit of its own."""

MAX_NUMBER = 1e30
"""As MAX_INTEGER; single precision reaches no further than 3e38."""

MAX_LAYERS = 4096
MAX_HEADS = 4096
MAX_HEAD_DIM = 1 << 14
MAX_WIDTH = 1 << 20
"""Channels of a hidden state, of an MLP, of a Mamba mixer's projection or state, of an adapter."""
MAX_VOCABULARY = 1 << 24
MAX_POSITIONS = 1 << 24
MAX_LABELS = 1 << 17
MAX_TOKEN_IDS = 1024
"""Token ids that end a text."""
MAX_CONV_WIDTH = 1024
MAX_FACTOR = 1e6
"""By which a rotary embedding stretches positions, or a Mamba mixer the hidden size."""
MAX_THETA = 1e15
