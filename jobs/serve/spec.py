"""The service spec: what strangers write in YAML, read strictly."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from jobs.demo import CHECKPOINTS
from jobs.errors import SpecError
from jobs.spec.document.errors import problems_of
from jobs.spec.document.places import Places, YamlDocument, document_of, read_document
from jobs.spec.engine import EngineYaml
from jobs.spec.fields import NAME_TEXT, Name, Place, absolute
from jobs.spec.model import ModelYaml
from pipelines.job import EngineSpec, ModelSpec
from pipelines.task_base.yaml import Strict, Text

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedSpec:
    """One model of a service: its name in requests, its checkpoint, and how many engines there are and how large."""

    name: str
    model: ModelSpec
    engine: EngineSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceSpec:
    """A service, whole. `keys_file` None: no key is asked for."""

    name: str
    models: tuple[ServedSpec, ...]
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    keys_file: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedService:
    """A service spec with the places of its keys."""

    spec: ServiceSpec
    places: Places


class ServedYaml(ModelYaml):
    """An entry of `models`."""

    name: Name = Field(description=NAME_TEXT)
    engine: EngineYaml = Field(EngineYaml(), description="a mapping of engine options")


class HttpYaml(Strict):
    """`http`."""

    host: Text = Field(DEFAULT_HOST, description="an address to listen on")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(DEFAULT_PORT, description="a port from 1 to 65535")


class KeysYaml(Strict):
    """`api_keys`."""

    file: Place = Field(description="a file of keys, one a line")


class ServiceSpecYaml(Strict):
    """The whole document."""

    later: ClassVar[Mapping[str, str]] = {"model": "belongs to a job spec; a service has models: [{name, path}, ...]"}

    name: Name = Field(description=NAME_TEXT)
    models: Annotated[list[ServedYaml], Field(min_length=1)] = Field(
        description="a list of mappings with at least name and path"
    )
    http: HttpYaml = Field(HttpYaml(), description="a mapping of host and port")
    api_keys: KeysYaml | None = Field(None, description="a mapping with file")


def load_service(path: Path, *, overrides: Sequence[str] = ()) -> LoadedService:
    """Reads a service spec and applies `--set` overrides.

    Raises:
        SpecError: with every problem found, one per line.
    """
    return _service_of(read_document(path, overrides))


def service_from(values: Mapping[str, Any]) -> LoadedService:
    """The same from values that were YAML once, as Ray Serve hands them on.

    Raises:
        SpecError: with every problem found, one per line.
    """
    return _service_of(document_of(values, "spec"))


def _service_of(document: YamlDocument) -> LoadedService:
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
    service = ServiceSpec(
        name=spec.name,
        models=tuple(
            ServedSpec(name=model.name, model=model.to_model(), engine=model.engine.to_engine())
            for model in spec.models
        ),
        host=spec.http.host,
        port=spec.http.port,
        keys_file=None if spec.api_keys is None else absolute(spec.api_keys.file),
    )
    return LoadedService(spec=service, places=document.places)


def service_of_checkpoint(path: str, *, overrides: Sequence[str] = ()) -> LoadedService:
    """A service of one checkpoint with everything else as it comes; the model has the name of its folder.

    Raises:
        SpecError: an override does not fit.
    """
    folder = path.rstrip("/").rpartition("/")[2].partition("@")[0]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", folder).lstrip("._-")[:100] or "model"
    values = {"name": name, "models": [{"name": name, "path": path}]}
    return _service_of(document_of(values, "the service", overrides))


def demo_service(*, overrides: Sequence[str] = ()) -> LoadedService:
    """The demo's models, each under the name of its task head.

    Raises:
        SpecError: an override does not fit.
    """
    heads = sorted(path for path in CHECKPOINTS.iterdir() if path.is_dir())
    models = [{"name": path.name, "path": str(path), "engine": {"num_cpus": 0.5}} for path in heads]
    return _service_of(document_of({"name": "demo", "models": models}, "the demo", overrides))
