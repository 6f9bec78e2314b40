"""`model` of a job spec, and an entry of `models` of a service spec."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from jobs.spec.fields import Place, absolute
from models.checkpoint.place import is_local
from models.config.families import with_old_spelling
from models.config.quantization import QuantizationConfig
from models.errors import CheckpointError, ConfigError, OptionError
from pipelines.job import ModelSpec
from pipelines.task_base.change import Change, to_any
from pipelines.task_base.yaml import Strict, wrong


def _quantization(value: Any) -> str | QuantizationConfig | None:
    """A method alone stays a name; settings that are all absent are left out."""
    if value is None:
        return None
    try:
        config = QuantizationConfig.of(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return config.method if config == QuantizationConfig(method=config.method) else config


def _without_password(path: str) -> str:
    try:
        is_local(path)
    except CheckpointError as error:
        raise ValueError(str(error)) from error
    return path


class ModelYaml(Strict):
    """`model`."""

    changeable: ClassVar[Mapping[str, Change]] = {"storage_options": to_any}

    path: Annotated[Place, AfterValidator(_without_password)] = Field(
        description="a checkpoint folder (config.json, *.safetensors and tokenizer.json), a URL of one, or a hub id such as Qwen/Qwen3-4B"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto, float32, bfloat16 or float16"
    )
    quantization: Annotated[str | QuantizationConfig | None, PlainValidator(_quantization)] = Field(
        None, description="null, int8, nf4 or fp4, or a mapping with a method and its settings"
    )
    options: dict[str, Any] = Field({}, description="a mapping of options that the checkpoint's family has")
    mamba_dt_clamp: Literal["prefill", "both", "none"] = Field("prefill", description="prefill, both or none")
    storage_options: dict[str, Any] = Field(
        {}, description="a mapping of options for the storage of path, if it is a URL"
    )

    @model_validator(mode="after")
    def _one_spelling(self) -> "ModelYaml":
        try:
            with_old_spelling(self.options, self.mamba_dt_clamp)
        except OptionError as error:
            raise wrong(error.option, error.problem) from error
        return self

    def to_model(self) -> ModelSpec:
        return ModelSpec(
            path=absolute(self.path) if is_local(self.path) else self.path,
            dtype=self.dtype,
            quantization=self.quantization,
            options=with_old_spelling(self.options, self.mamba_dt_clamp),
            storage_options=self.storage_options,
        )
