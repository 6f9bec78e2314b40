"""What sentence-transformers' files say beside a network: which modules follow it, prompts, and how texts come to it.

    modules.json                        the chain: Transformer, then Pooling, Dense, Normalize, or LogitScore
    1_Pooling/config.json, ...          a module's own settings; `models.tasks` read those
    config_sentence_transformers.json   prompts by name, and the activation over a cross-encoder's score
    sentence_bert_config.json           the longest text, lower case, texts as messages of a chat

The library has no specification but its code; this follows versions 2 to 6.2 (`base/model.py`, `base/modules/transformer.py`).
Every file may be absent. Nothing here knows what a module does.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.checkpoint.files import MODULE_FILES, module_kind
from models.checkpoint.shown import shown
from models.checkpoint.whole_files import read_whole
from models.config.fields import ConfigFields
from models.errors import ConfigError

MODULES_FILE = "modules.json"
MAX_MODULES = 16
MAX_PROMPTS = 1024
SCORE_ACTIVATIONS = ("Sigmoid", "Identity")

_LIBRARY = "sentence_transformers."
_NETWORK = "Transformer"
_KNOWN = (_NETWORK, *MODULE_FILES)
_PLAIN = (str, bool, int, float)
_OF_SIZE = frozenset({"padding", "truncation", "max_length", "pad_to_multiple_of", "return_tensors", "restore_suffix"})
_RESERVED = frozenset(
    {"messages", "conversation", "tools", "documents", "continue_final_message", "now", "strftime_now", "tokenize"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """One module of the chain: its class, and its settings."""

    kind: str
    settings: ConfigFields

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.settings.file.parent


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatForm:
    """How texts are put to a chat template: each message's content as a text, or as a list of one part where `has_parts`; and what
    else the template is given."""

    has_parts: bool = False
    variables: Mapping[str, str | bool | int | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SentenceFiles:
    """The files of one checkpoint; empty where it has none.

    `modules` are those after the network; `has_modules` says whether there is a chain at all, which may end with the network.
    With `chat` texts go through the chat template. `about` is config_sentence_transformers.json.
    """

    folder: Path
    about: ConfigFields
    has_modules: bool = False
    modules: tuple[Module, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    max_seq_length: int | None = None
    lowers_case: bool = False
    chat: ChatForm | None = None

    @classmethod
    def read(cls, folder: Path) -> "SentenceFiles":
        """Reads what a checkpoint's folder has of them.

        Raises:
            ConfigError: a file cannot be read, names a module that is not known here, or a value cannot be used.
        """
        about = _fields(folder / "config_sentence_transformers.json")
        texts = _fields(folder / "sentence_bert_config.json")
        prompts = _prompts(about)
        default = _default_prompt_name(about, prompts)
        has_modules = (folder / MODULES_FILE).exists()
        return cls(
            folder=folder,
            about=about,
            has_modules=has_modules,
            modules=_modules(folder) if has_modules else (),
            prompts=prompts,
            default_prompt_name=default,
            max_seq_length=texts.optional_integer("max_seq_length", None),
            lowers_case=texts.boolean("do_lower_case", default=False),
            chat=_chat_form(texts),
        )

    def score_activation(self) -> str:
        """The class of the activation over a cross-encoder's score: Sigmoid, as for one label by default, or Identity. Version 5.4
        and on write it into config_sentence_transformers.json, 4 into config.json's `sentence_transformers`, 3 as
        `sbert_ce_default_activation_function`; the first that is there wins.

        Raises:
            ConfigError: it is another one.
        """
        network = ConfigFields.read(self.folder / "config.json")
        places = (
            (self.about, "activation_fn"),
            (network.nested("sentence_transformers"), "activation_fn"),
            (network, "sbert_ce_default_activation_function"),
        )
        for fields, name in places:
            if (found := class_name(fields, name, SCORE_ACTIVATIONS)) is not None:
                return found
        return "Sigmoid"


def class_name(fields: ConfigFields, name: str, allowed: Collection[str]) -> str | None:
    """The class that a field names by its dotted path in torch, one of `allowed`; None if it names
    none.

    Raises:
        ConfigError: it is another one.
    """
    value = fields.values.get(name)
    if value is None:
        return None
    last = value.rpartition(".")[2] if isinstance(value, str) and value.startswith("torch.nn.modules.") else None
    if last is None or last not in allowed:
        raise fields.error(name, f"the path in torch.nn.modules of one of {', '.join(allowed)}")
    return last


def _fields(file: Path) -> ConfigFields:
    return ConfigFields.read(file) if file.exists() else ConfigFields(file=file, values={})


def _modules(folder: Path) -> tuple[Module, ...]:
    """The modules after the network, which is the first."""
    file = folder / MODULES_FILE
    entries = _entries(file)
    kinds = [_kind(entry) for entry in entries]
    paths = [str(entry.values["path"]) for entry in entries]
    if kinds[:1] != [_NETWORK] or kinds.count(_NETWORK) > 1 or paths[0]:
        raise ConfigError(
            f"{file} lists {', '.join(kinds) or 'no modules'}; it must begin with the one Transformer, in the checkpoint's own folder"
        )
    for kind, path in zip(kinds[1:], paths[1:], strict=True):
        if module_kind(path) != kind:
            raise ConfigError(f"{file}: the files of {kind} are in {shown(path)}; they must be in NUMBER_{kind}")
    return tuple(
        Module(kind=kind, settings=_fields(folder / path / "config.json"))
        for kind, path in zip(kinds[1:], paths[1:], strict=True)
    )


def _entries(file: Path) -> list[ConfigFields]:
    try:
        entries = json.loads(read_whole(file))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid JSON ({error}); download it again") from error
    if not isinstance(entries, list) or len(entries) > MAX_MODULES or not all(map(_is_entry, entries)):
        raise ConfigError(
            f"{file} must hold a list of at most {MAX_MODULES} objects, each with the texts type and path"
        )
    return [ConfigFields(file=file, values=entry) for entry in entries]


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("type"), str) and isinstance(entry.get("path"), str)


def _kind(entry: ConfigFields) -> str:
    """The class of a module. A class of the author's own code is refused, even under a name that
    is known here."""
    path = str(entry.values["type"])
    kind = path.rpartition(".")[2]
    if not path.startswith(_LIBRARY) or kind not in _KNOWN:
        raise entry.error("type", f"a module of sentence-transformers that is known here: {', '.join(_KNOWN)}")
    return kind


def _prompts(about: ConfigFields) -> dict[str, str]:
    prompts = about.nested("prompts").values
    named = {name: text for name, text in prompts.items() if text is not None}
    if len(named) > MAX_PROMPTS or not all(isinstance(text, str) for text in named.values()):
        raise about.error("prompts", f"an object of at most {MAX_PROMPTS:,} texts")
    return named


def _default_prompt_name(about: ConfigFields, prompts: Mapping[str, str]) -> str | None:
    name = about.values.get("default_prompt_name")
    if name is not None and name not in prompts:
        raise about.error("default_prompt_name", f"one of its prompts ({', '.join(prompts) or 'it has none'}), or null")
    return name


def _chat_form(texts: ConfigFields) -> ChatForm | None:
    """From version 5.4 on: whether a text becomes a message, which it does wherever the network's tokenizer had a chat template when
    it was saved."""
    modalities = texts.nested("modality_config")
    if "message" not in modalities.values:
        return None
    form = modalities.nested("message").choice("format", ("flat", "structured"), "structured")
    return ChatForm(has_parts=form == "structured", variables=_chat_variables(texts))


def _chat_variables(texts: ConfigFields) -> dict[str, Any]:
    """What the chat template is given besides messages; how texts are cut and padded, which is not done here, is left out."""
    processing = texts.nested("processing_kwargs")
    others = [name for name in processing.values if name not in ("chat_template", "text", "common")]
    others += [name for kind in ("text", "common") for name in processing.nested(kind).values if name not in _OF_SIZE]
    if others:
        raise texts.error("processing_kwargs", f"without {', '.join(map(str, others))}, which is not known here")
    values = processing.nested("chat_template").values
    if not all(isinstance(value, _PLAIN) for value in values.values()) or _RESERVED & values.keys():
        raise texts.error(
            "processing_kwargs",
            f"with variables of the chat template that are texts, numbers, true or false, and none of {', '.join(sorted(_RESERVED))}",
        )
    return {name: value for name, value in values.items() if name not in _OF_SIZE}
