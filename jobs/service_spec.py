"""The service spec: what strangers write in YAML, read strictly."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from actors.work import EngineSettings
from jobs.demo import CHECKPOINTS
from jobs.errors import SpecError
from jobs.places import Document, document_of, read_document
from jobs.spec import EngineYaml, ModelYaml, absolute
from jobs.spec_errors import problems_of
from jobs.spec_fields import Strict, Text
from models.checkpoint_place import is_local
from pipelines.cluster import engine_cpus
from pipelines.job import EngineSpec

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
NAME_TEXT = "1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedSpec:
    """One model of a service: its name in requests, what its engines are made from, and how many there are."""

    name: str
    settings: EngineSettings
    engine: EngineSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceSpec:
    """A service, whole. `keys_file` None: no key is asked for."""

    name: str
    models: tuple[ServedSpec, ...]
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    keys_file: str | None = None


class ServedYaml(ModelYaml):
    """An entry of `models`."""

    name: Annotated[str, Field(pattern=NAME)] = Field(description=NAME_TEXT)
    engine: EngineYaml = Field(EngineYaml(), description="a mapping of engine options")


class HttpYaml(Strict):
    """`http`."""

    host: Text = Field(DEFAULT_HOST, description="an address to listen on")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(DEFAULT_PORT, description="a port from 1 to 65535")


class KeysYaml(Strict):
    """`api_keys`."""

    file: Text = Field(description="a file of keys, one a line")


class ServiceSpecYaml(Strict):
    """The whole document."""

    later: ClassVar[Mapping[str, str]] = {"model": "belongs to a job spec; a service has models: [{name, path}, ...]"}

    name: Annotated[str, Field(pattern=NAME)] = Field(description=NAME_TEXT)
    models: Annotated[list[ServedYaml], Field(min_length=1)] = Field(
        description="a list of mappings with at least name and path"
    )
    http: HttpYaml = Field(HttpYaml(), description="a mapping of host and port")
    api_keys: KeysYaml | None = Field(None, description="a mapping with file")


def load_service(path: Path, *, overrides: Sequence[str] = ()) -> ServiceSpec:
    """Reads a service spec and applies `--set` overrides.

    Raises:
        SpecError: with every problem found, one a line.
    """
    return _service_of(read_document(path, overrides))


def service_from(values: Mapping[str, Any]) -> ServiceSpec:
    """The same from values that were YAML once, as Ray Serve hands them on.

    Raises:
        SpecError: with every problem found, one a line.
    """
    return _service_of(document_of(values, "spec"))


def _service_of(document: Document) -> ServiceSpec:
    try:
        spec = ServiceSpecYaml.model_validate(document.values)
    except ValidationError as error:
        raise SpecError(problems_of(error, ServiceSpecYaml, document)) from error
    problems = [
        document.places.problem(
            ("models", index, "engine", "service"), "belongs to a job spec; a service has engines of its own"
        )
        for index, model in enumerate(spec.models)
        if model.engine.service is not None
    ]
    names = [model.name for model in spec.models]
    problems += [
        document.places.problem(("models", index, "name"), f"{name!r} is the name of two models")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    if problems:
        raise SpecError(problems)
    return ServiceSpec(
        name=spec.name,
        models=tuple(map(_served, spec.models)),
        host=spec.http.host,
        port=spec.http.port,
        keys_file=None if spec.api_keys is None else absolute(spec.api_keys.file),
    )


def _served(model: ServedYaml) -> ServedSpec:
    engine = model.engine.to_engine()
    settings = EngineSettings(
        path=absolute(model.path) if is_local(model.path) else model.path,
        storage_options=model.storage_options,
        dtype=model.dtype,
        quantization=model.quantization,
        mamba_dt_clamp=model.mamba_dt_clamp,
        num_threads=max(1, int(engine_cpus(engine))),
        max_model_len=engine.max_model_len,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        online_batched_tokens=engine.online_batched_tokens,
        block_size=engine.block_size,
        cache_bytes=engine.cache_bytes,
        gpu_memory_fraction=engine.gpu_memory_fraction,
        tensor_parallel_size=engine.tensor_parallel_size,
        step_timeout_s=engine.step_timeout_s,
    )
    return ServedSpec(name=model.name, settings=settings, engine=engine)


def service_of_checkpoint(path: str, *, overrides: Sequence[str] = ()) -> ServiceSpec:
    """A service of one checkpoint with everything else as it comes; the model has the name of its folder.

    Raises:
        SpecError: an override does not fit.
    """
    folder = path.rstrip("/").rpartition("/")[2].partition("@")[0]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", folder).lstrip("._-")[:100] or "model"
    values = {"name": name, "models": [{"name": name, "path": path}]}
    return _service_of(document_of(values, "the service", overrides))


def demo_service(*, overrides: Sequence[str] = ()) -> ServiceSpec:
    """The demo's models, each under the name of its task head.

    Raises:
        SpecError: an override does not fit.
    """
    heads = sorted(path for path in CHECKPOINTS.iterdir() if path.is_dir())
    models = [{"name": path.name, "path": str(path), "engine": {"num_cpus": 0.5}} for path in heads]
    return _service_of(document_of({"name": "demo", "models": models}, "the demo", overrides))
