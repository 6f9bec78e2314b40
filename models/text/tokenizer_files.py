"""A tokenizer as it is published: tokenizer.json, tokenizer_config.json, special_tokens_map.json and chat templates.

Read as transformers' generic fast tokenizer reads them: the pipeline is that of tokenizer.json, the other files name
special tokens and may add some. `add_bos_token` and `add_eos_token` are not read, since beside a tokenizer.json its
post-processor decides.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from models.checkpoint.files import TEMPLATE_FOLDER
from models.checkpoint.shown import cut
from models.checkpoint.whole_files import TEMPLATE_BYTES, read_whole
from models.errors import TokenizerError
from models.text.panics import panics_as_errors

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
TEMPLATE_FILE = "chat_template.jinja"
DEFAULT_TEMPLATE = "default"
MAX_TEMPLATES = 64

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFiles:
    """What the files of a tokenizer say.

    `named` maps `bos_token` and its like to their strings; `special` holds every string that decoding skips;
    `templates` maps names to chat templates, the usual one "default".
    """

    folder: Path
    backend: tokenizers.Tokenizer
    named: Mapping[str, str]
    special: frozenset[str]
    templates: Mapping[str, str]

    @classmethod
    def read(cls, path: str | Path) -> "TokenizerFiles":
        """Reads a checkpoint folder.

        Raises:
            TokenizerError: there is no tokenizer.json, or a file cannot be used; the text names it.
        """
        folder = Path(path)
        backend = _read_backend(folder)
        config = _read_object(folder / CONFIG_FILE)
        special = _special_contents(backend)
        with _readable_tokens(folder / CONFIG_FILE):
            named, others = _special_tokens(folder, config)
            strings = {name: _content(token) for name, token in named.items()}
            tokens = _tokens_to_add(backend, config.get("added_tokens_decoder") or {}, [*named.values(), *others])
        with readable_tokenizer(folder / CONFIG_FILE):
            backend.add_tokens(tokens)
        return cls(
            folder=folder,
            backend=backend,
            named=strings,
            special=special | _special_contents(backend),
            templates=_read_templates(folder, config),
        )


def _read_backend(folder: Path) -> tokenizers.Tokenizer:
    file = folder / TOKENIZER_FILE
    if not file.exists():
        others = [name for name in ("tokenizer.model", "vocab.json", "tekken.json") if (folder / name).exists()]
        remedy = (
            f"convert {others[0]} (transformers: AutoTokenizer, save_pretrained)"
            if others
            else "give a checkpoint with one"
        )
        raise TokenizerError(f"{folder} has no {TOKENIZER_FILE}: {remedy}")
    with readable_tokenizer(file):
        backend = tokenizers.Tokenizer.from_buffer(read_whole(file))
        backend.no_truncation()
        backend.no_padding()
    return backend


@contextmanager
def readable_tokenizer(file: Path) -> Iterator[None]:
    """Turns what the library raises over a tokenizer, its panics too, into an error that names the file."""
    try:
        with panics_as_errors():
            yield
    except (TokenizerError, MemoryError):
        raise
    except Exception as error:  # the library raises nothing narrower
        text = cut(f"{error}")
        raise TokenizerError(f"{file} cannot be read as a tokenizer ({text}); download it again") from error


def _read_object(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    if not file.exists():
        return {}
    try:
        values = json.loads(read_whole(file))
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{file} cannot be read as JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise TokenizerError(f"{file} holds {type(values).__name__}; it must hold one JSON object")
    return values


def _special_contents(backend: tokenizers.Tokenizer) -> frozenset[str]:
    return frozenset(token.content for token in backend.get_added_tokens_decoder().values() if token.special)


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Special tokens that have a name, by name, and those that have none. An older special_tokens_map.json wins."""
    values = dict(config)
    if "added_tokens_decoder" not in config:
        values |= _read_object(folder / SPECIAL_TOKENS_FILE)
    others = values.get("extra_special_tokens") or values.get("additional_special_tokens") or []
    named = {name: values[name] for name in SPECIAL_TOKEN_NAMES if values.get(name) is not None}
    named |= {
        name: value
        for name, value in values.items()
        if name.endswith("_token") and name not in named and isinstance(value, str | dict)
    }
    if isinstance(others, dict):
        return named | others, []
    return named, list(others)


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _tokens_to_add(
    backend: tokenizers.Tokenizer, added: Mapping[str, Any], special: Iterable[Any]
) -> list[tokenizers.AddedToken]:
    """The tokens that tokenizer.json lacks, and those it has with the settings of tokenizer_config.json."""
    tokens = [_added_token(fields) for _, fields in sorted(added.items(), key=lambda item: int(item[0]))]
    known = {token.content for token in [*backend.get_added_tokens_decoder().values(), *tokens]}
    return tokens + [_added_token(token, special=True) for token in special if _content(token) not in known]


@contextmanager
def _readable_tokens(file: Path) -> Iterator[None]:
    """Turns what a value of another kind than it has to be causes into an error that names the file."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise TokenizerError(
            f"{file}: its special or added tokens cannot be read ({cut(repr(error))}); download it again"
        ) from error


def _added_token(token: Any, **settings: bool) -> tokenizers.AddedToken:
    fields: dict[str, Any] = (
        {"content": token} if isinstance(token, str) else {name: token[name] for name in token if name != "__type"}
    )
    return tokenizers.AddedToken(fields.pop("content"), **fields | settings)


def _read_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name: files of their own win over tokenizer_config.json."""
    files = {file.stem: file for file in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))}
    if (folder / TEMPLATE_FILE).exists():
        files[DEFAULT_TEMPLATE] = folder / TEMPLATE_FILE
    if len(files) > MAX_TEMPLATES:
        raise TokenizerError(f"{folder} has {len(files):,} chat templates; it may have {MAX_TEMPLATES}")
    if files:
        return {name: _read_text(file) for name, file in files.items()}
    given = config.get("chat_template")
    try:
        templates = (
            {DEFAULT_TEMPLATE: given}
            if isinstance(given, str)
            else {str(entry["name"]): str(entry["template"]) for entry in given or []}
        )
    except (KeyError, TypeError) as error:
        raise TokenizerError(
            f"{folder / CONFIG_FILE}: chat_template must be a string, or a list of objects with name and template"
        ) from error
    if len(templates) > MAX_TEMPLATES or any(len(source) > TEMPLATE_BYTES for source in templates.values()):
        raise TokenizerError(
            f"{folder / CONFIG_FILE}: chat_template must be at most {MAX_TEMPLATES} templates of at most {TEMPLATE_BYTES:,} characters"
        )
    return templates


def _read_text(file: Path) -> str:
    try:
        return read_whole(file).decode("utf-8")
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file} cannot be read as UTF-8 text: {error}") from error
