"""What a checkpoint's embeddings are: which tokens are pooled, what follows, and what is written before a text.

    embedding = embedding_of(folder, config)
    ids = embedding.token_ids(tokenizer, texts, prompt=embedding.prompt(name="query"))
    vectors = Scorer.from_pretrained(folder).embed(ids)        # [N, D]

If a checkpoint has sentence-transformers' files (`models.config.sentence_files`), they say all of
it, as `SentenceTransformer.encode` reads them. If it has none:

- **Pooling** ("auto") is the last token of a causal network, the only one that has seen them all; so the cards of Qwen3-Embedding,
  e5-mistral and gte-Qwen2 have it, whose tokenizers end a text with a token for it. A network that attends both ways has the mean,
  as the cards of those made so have it (LLM2Vec, GTE, NV-Embed without its own layers).
- Vectors are scaled to length 1, as those cards and OpenAI's API do.
- The only prompt is Qwen3's instruction; other families have none.

`dimensions` keeps the first of each vector (Matryoshka: Kusupati et al. 2022), and scales it to length 1 after that, as OpenAI's API
and `encode(truncate_dim=..., normalize_embeddings=True)` do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.config.families import FAMILIES
from models.config.fields import ConfigFields
from models.config.limits import MAX_WIDTH
from models.config.model_config import ModelConfig
from models.config.sentence_files import ChatForm, Module, SentenceFiles, class_name
from models.errors import ConfigError, ParameterError, RequestError
from models.tasks.messages import rendered
from models.text.tokenizer import Tokenizer

Pooling = Literal["last", "mean", "cls"]
"""The vector of a text before what follows: that of its last token, the mean of all, or that of its first."""

AskedPooling = Literal["auto", "last", "mean", "cls"]

ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
"""What may stand over a projection: classes of torch.nn."""

_MODES: Mapping[str, Pooling] = {"lasttoken": "last", "mean": "mean", "cls": "cls"}
_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_INSTRUCT, _QUERY = "Instruct: ", "\nQuery:"


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedOptions:
    """What is asked of vectors; what is "auto" or None is as the checkpoint has it. `num_skipped` tokens of each sequence, those of a
    prompt, are left out where tokens are pooled (`EmbeddingConfig.num_skipped`)."""

    pooling: AskedPooling = "auto"
    normalize: bool | None = None
    dimensions: int | None = None
    num_skipped: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """A linear layer over vectors: x [N, in] -> activation(W x + b) [N, out]; its weights lie in `folder` of the checkpoint."""

    folder: str
    in_features: int
    out_features: int
    has_bias: bool
    activation: str


Step = Projection | Literal["normalize"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingConfig:
    """How a checkpoint makes a vector of `size` numbers from a text.

    `steps` follow the pooling; `normalizes` says whether the vector has length 1 in the end. `pools_prompt` is False where the tokens
    of a prompt are not pooled. `instruct` is what stands before and after an instruction. A text may have `max_tokens`, prompt and
    special tokens included; None is what the network takes.
    """

    pooling: Pooling
    size: int
    normalizes: bool
    steps: tuple[Step, ...] = ()
    pools_prompt: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    instruct: tuple[str, str] | None = None
    max_tokens: int | None = None
    lowers_case: bool = False
    chat: ChatForm | None = None

    def prompt(self, *, name: str | None = None, text: str | None = None, instruction: str | None = None) -> str:
        """What stands before a text: the prompt of that name, `text` itself, or the checkpoint's form of an instruction; the
        checkpoint's default where none is asked for.

        Raises:
            RequestError: there is no such prompt, no form for instructions, or more than one was asked for.
        """
        if sum(asked is not None for asked in (name, text, instruction)) > 1:
            raise RequestError("a prompt is asked for by name, as text or as an instruction; give one of them")
        if text is not None:
            return text
        if instruction is not None:
            return self._instructed(instruction)
        if name is None:
            return self.default_prompt
        if name not in self.prompts:
            has = f"it has {', '.join(map(repr, self.prompts))}" if self.prompts else "it has none"
            raise RequestError(
                f"this checkpoint has no prompt {name[:64]!r} (config_sentence_transformers.json): {has}"
            )
        return self.prompts[name]

    def token_ids(self, tokenizer: Tokenizer, texts: Sequence[str], *, prompt: str) -> list[list[int]]:
        """The token ids of texts behind a prompt of `prompt`. Special tokens that a text spells stay text; a prompt may have some.

        Raises:
            RequestError: a text cannot be encoded.
            TemplateError: texts go through a chat template, which failed or leaves them out.
        """
        if self.lowers_case:
            prompt, texts = lowered(prompt), list(map(lowered, texts))
        protected = [tokenizer.protect(text) for text in texts]
        if self.chat is None:
            return tokenizer.encode_batch([prompt + text for text in protected])
        prompts = [rendered(tokenizer, self.chat, system=prompt, user=text) for text in protected]
        return tokenizer.encode_batch(prompts, add_special_tokens=False)

    def num_skipped(self, tokenizer: Tokenizer, prompt: str) -> int:
        """How many tokens of `prompt` are not pooled: those that it has by itself, without the special token that may end it."""
        if self.pools_prompt or self.chat is not None or not prompt:
            return 0
        ids = tokenizer.encode(lowered(prompt) if self.lowers_case else prompt)
        return len(ids) - 1 if ids and tokenizer.is_special(ids[-1]) else len(ids)

    def check(self, options: EmbedOptions) -> None:
        """Raises ParameterError for more dimensions than a vector has."""
        if options.dimensions is not None and not 1 <= options.dimensions <= self.size:
            problem = f"was {options.dimensions}; this checkpoint's vectors have from 1 to {self.size}"
            raise ParameterError("dimensions", problem, kind="")

    def max_len(self, max_model_len: int) -> int:
        """The most tokens that a text may have in a model that takes `max_model_len`."""
        return max_model_len if self.max_tokens is None else min(self.max_tokens, max_model_len)

    def _instructed(self, instruction: str) -> str:
        if self.instruct is None:
            raise RequestError(
                "this checkpoint does not say how an instruction is put to it (no prompt 'query' of the form "
                "'Instruct: ...\\nQuery:'); give the whole prompt as text"
            )
        before, after = self.instruct
        return f"{before}{instruction}{after}"


def embedding_of(folder: Path, config: ModelConfig) -> EmbeddingConfig:
    """How the checkpoint in `folder` makes vectors.

    Raises:
        ConfigError: its sentence-transformers files cannot be used, or are those of a cross-encoder.
    """
    files = SentenceFiles.read(folder)
    default = files.default_prompt_name
    made = _from_modules(files, config) if files.has_modules else _from_network(config)
    return EmbeddingConfig(
        pooling=made.pooling,
        size=made.size,
        normalizes=made.normalizes,
        steps=made.steps,
        pools_prompt=made.pools_prompt,
        prompts=files.prompts,
        default_prompt="" if default is None else files.prompts[default],
        instruct=_instruct_of(files.prompts, config),
        max_tokens=files.max_seq_length,
        lowers_case=files.lowers_case,
        chat=files.chat,
    )


def _from_network(config: ModelConfig) -> EmbeddingConfig:
    return EmbeddingConfig(pooling="last" if config.is_causal else "mean", size=config.hidden_size, normalizes=True)


def _from_modules(files: SentenceFiles, config: ModelConfig) -> EmbeddingConfig:
    """The chain as the checkpoint has it. A length that is made 1 at its end is `normalizes`, since `dimensions` come before it."""
    if not files.modules or files.modules[0].kind != "Pooling":
        kinds = ["Transformer", *(module.kind for module in files.modules)]
        raise ConfigError(
            f"{files.folder}/modules.json lists {', '.join(kinds)}: no Pooling follows the network, so it makes no embeddings; "
            "it may be a reranker"
        )
    pooling = files.modules[0].settings
    size = _width(pooling, config)
    steps: list[Step] = []
    for module in files.modules[1:]:
        if module.kind == "Normalize":
            _check_place(module.settings)
            steps.append("normalize")
        elif module.kind == "Dense":
            projection = _projection(module, size)
            steps.append(projection)
            size = projection.out_features
        else:
            raise ConfigError(
                f"{files.folder}/modules.json lists {module.kind} behind a Pooling; only Dense and Normalize may follow it"
            )
    normalizes = steps[-1:] == ["normalize"]
    return EmbeddingConfig(
        pooling=_pooling(pooling),
        size=size,
        normalizes=normalizes,
        steps=tuple(steps[:-1] if normalizes else steps),
        pools_prompt=pooling.boolean("include_prompt", default=True),
    )


def _width(pooling: ConfigFields, config: ModelConfig) -> int:
    """The numbers of a pooled vector: the network's, under the old name or the new one."""
    name = "embedding_dimension" if "embedding_dimension" in pooling.values else "word_embedding_dimension"
    if pooling.integer(name, config.hidden_size, maximum=MAX_WIDTH) != config.hidden_size:
        raise pooling.error(name, f"{config.hidden_size}, the network's hidden_size")
    return config.hidden_size


def _pooling(pooling: ConfigFields) -> Pooling:
    """The one mode, under its new name or as the flag of old files that is set; the mean where none is."""
    if pooling.values.get("pooling_mode") is not None:
        return _MODES[pooling.choice("pooling_mode", tuple(_MODES))]
    modes = [mode for name, mode in _OLD_MODES.items() if pooling.boolean(name, default=False)] or ["mean"]
    if len(modes) > 1 or modes[0] not in _MODES:
        raise ConfigError(f"{pooling.file} pools by {', '.join(modes)}; it must be one of {', '.join(_MODES)}")
    return _MODES[modes[0]]


def _projection(module: Module, size: int) -> Projection:
    settings = module.settings
    _check_place(settings)
    if settings.boolean("use_residual", default=False):
        raise settings.error("use_residual", "false or absent")
    if settings.integer("in_features", size, maximum=MAX_WIDTH) != size:
        raise settings.error("in_features", f"{size}, what comes from the module before it")
    return Projection(
        folder=module.folder.name,
        in_features=size,
        out_features=settings.integer("out_features", size, maximum=MAX_WIDTH),
        has_bias=settings.boolean("bias", default=True),
        activation=class_name(settings, "activation_function", ACTIVATIONS) or "Tanh",
    )


def _check_place(settings: ConfigFields) -> None:
    """Refuses a module over single tokens, or over another vector than the text's."""
    for name in ("module_input_name", "module_output_name"):
        if settings.values.get(name) not in (None, "sentence_embedding"):
            raise settings.error(name, "sentence_embedding or absent")


def _instruct_of(prompts: Mapping[str, str], config: ModelConfig) -> tuple[str, str] | None:
    """What stands around an instruction: as in the checkpoint's own prompt for queries (Qwen3-Embedding "Query:", gte-Qwen2 and
    e5-mistral "Query: "), or for a Qwen3 without prompts as on Qwen3-Embedding's card."""
    query = prompts.get("query", "")
    if query.startswith(_INSTRUCT) and _QUERY in query:
        return _INSTRUCT, query[query.rindex(_QUERY) :]
    return (_INSTRUCT, _QUERY) if FAMILIES[config.model_type].has_retrievers and not prompts else None


def lowered(text: str) -> str:
    """A text for a checkpoint with `do_lower_case`: each character in lower case by itself, as the tokenizers library does it."""
    return "".join(character.lower() for character in text)
