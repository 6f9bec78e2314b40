"""Whose step sizes have a floor in Mamba layers: the one choice that published implementations make differently."""

from typing import Literal, get_args

from models.config.model_config import ModelConfig
from models.errors import ConfigError

DtClamp = Literal["none", "prefill", "both"]
"""Whose step sizes have the published smallest one as their floor: nobody's, those of given tokens, or all tokens'."""

DEFAULT_CLAMP: DtClamp = "prefill"


def choose_dt_clamp(name: str, config: ModelConfig) -> DtClamp:
    """The policy of this name, for this network.

    Raises:
        ConfigError: there is none, or one was chosen for a network without Mamba layers.
    """
    if name not in get_args(DtClamp):
        raise ConfigError(f"mamba_dt_clamp was {name!r}; it must be one of {', '.join(get_args(DtClamp))}")
    if name != DEFAULT_CLAMP and config.mamba is None:
        raise ConfigError(
            f"mamba_dt_clamp was {name!r}, but {config.architecture} has no Mamba layers: leave it out, or give {DEFAULT_CLAMP}"
        )
    return name  # type: ignore[return-value]
