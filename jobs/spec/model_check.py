"""What can be known to be wrong with a model before anything starts, for jobs and services alike.

Reads headers only. Of a checkpoint that is elsewhere only the description is brought here, and its weights are looked for by their names.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.errors import ServiceError
from jobs.errors import SpecError
from jobs.spec.document.key_paths import KeyPath, key_path
from jobs.spec.document.places import Places
from models.checkpoint.files import why_it_is_no_folder
from models.checkpoint.found import FoundCheckpoint
from models.checkpoint.stored_tensors import stored_tensors
from models.config.agreement import check_agreement
from models.config.families import FAMILIES
from models.config.model_config import ModelConfig
from models.config.quantization import choose_quantization
from models.config.shard_sizes import check_size
from models.errors import CheckpointError, ModelError, OptionError
from pipelines.errors import PlanError, SourceError, TaskError
from pipelines.job import EngineSpec, ModelSpec


def check_model(
    model: ModelSpec, engine: EngineSpec, places: Places, *, model_at: KeyPath, engine_at: Callable[[str], KeyPath]
) -> tuple[ModelConfig, FoundCheckpoint]:
    """The configuration of a checkpoint that can be loaded as the spec says, and where its description is. Its keys stand under
    `model_at`, an option of the engine at the key that `engine_at` gives.

    Raises:
        SpecError: it cannot be loaded so.
    """
    with problems_at(places, (*model_at, "path")):
        found = model.find("description")
        config = _read_config(found)
    with problems_at(places, (*model_at, "quantization")):
        choose_quantization(model.quantization, config.quantization)
    try:
        FAMILIES[config.model_type].choose(model.options)
    except OptionError as error:
        raise SpecError([places.problem(_option_at(error.option, places, model_at), error.problem)]) from error
    with problems_at(places, engine_at("tensor_parallel_size")):
        check_size(config, engine.tensor_parallel_size)
    given, longest = engine.max_model_len, config.max_position_embeddings
    if given is not None and given > longest:
        text = f"was {given:,}; it must be at most {longest:,}, the longest sequence that the checkpoint was made for"
        raise SpecError([places.problem(engine_at("max_model_len"), text)])
    return config, found


def _option_at(name: str, places: Places, model_at: KeyPath) -> KeyPath:
    """Where an option of the family was written: under `options`, or beside them, as one could be before."""
    old = (*model_at, name)
    return old if places.has(old) else (*model_at, "options", name)


def _read_config(found: FoundCheckpoint) -> ModelConfig:
    if found.folder.is_file():
        raise CheckpointError(why_it_is_no_folder(found.folder))
    if not found.folder.is_dir():
        here = f"a relative path starts from the current directory, which is {Path.cwd()}"
        raise CheckpointError(
            f"there is no folder {found.folder}; give a checkpoint folder ({here}), a URL or a hub id"
        )
    config = ModelConfig.from_pretrained(found.folder)
    if found.version is None:
        check_agreement(config, stored_tensors(found.folder), found.folder)
    else:
        found.check_weights()
    return config


@contextmanager
def problems_at(places: Places, path: KeyPath) -> Iterator[None]:
    """What a key can cause comes out as a `SpecError` at that key, or at the one that the error itself names."""
    try:
        yield
    except TaskError as error:
        raise SpecError([places.problem(key_path(error.place), error.message)]) from error
    except PlanError as error:
        raise SpecError([places.problem(path if error.place is None else key_path(error.place), str(error))]) from error
    except (ModelError, ServiceError, SourceError) as error:
        raise SpecError([places.problem(path, str(error))]) from error
