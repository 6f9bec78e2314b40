"""How relevant a document is to a query: how a checkpoint is asked, and what its numbers mean.

    reranking = reranking_of(folder, config, tokenizer)
    ids = reranking.token_ids(tokenizer, pairs)
    values = scorer.score_labels(ids, reranking.label_ids)    # [N, 2]; with a head of one label scorer.score, [N, 1]
    scores = reranking.relevance(values)                      # [N]

A causal model answers yes or no, and its score is the probability of yes next to no (the softmax over the two logits); a
sequence-classification head of one label says it by that. They are asked in one of three forms:

- "qwen3-reranker", Qwen3-Reranker's published template (https://huggingface.co/Qwen/Qwen3-Reranker-0.6B, Zhang et al. 2025): for a Qwen3
  without a sentence-transformers chain, causal or converted to one label from its yes and no, if its tokenizer has ChatML's tokens.
- "chat", the checkpoint's own chat template with the roles query and document, where sentence_bert_config.json says that texts
  become messages (sentence-transformers 5.4 and on).
- "pair", the tokenizer's own encoding of two texts, as `sentence_transformers.CrossEncoder` has it, for every other head of one label.

Files cannot tell a Qwen3 of one label that was trained on plain pairs, and saved before 5.4, from a converted one: `form` can.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.config.families import FAMILIES
from models.config.fields import ConfigFields
from models.config.model_config import NO_HEAD, ModelConfig
from models.config.sentence_files import ChatForm, SentenceFiles
from models.errors import ConfigError, RequestError
from models.tasks.embedding import lowered
from models.tasks.messages import rendered
from models.text.tokenizer import Tokenizer

RerankForm = Literal["qwen3-reranker", "chat", "pair"]
AskedForm = Literal["auto", "qwen3-reranker", "pair"]
Activation = Literal["Sigmoid", "Identity"]

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

DEFAULT_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""What Qwen3-Reranker is asked to judge by, where nothing else is given."""

_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_CHATML = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A query and a document."""

    query: str
    document: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reranking:
    """How a checkpoint is asked.

    `label_ids` are its answers yes and no, for `Scorer.score_labels`; none of a head of one label. `activation` makes the score of
    the logit. `prompt` is what it is instructed by default. A pair may have `max_tokens`; None is what the network takes.
    """

    form: RerankForm
    label_ids: tuple[tuple[int, ...], ...]
    activation: Activation
    prompt: str
    max_tokens: int | None = None
    lowers_case: bool = False
    chat: ChatForm | None = None

    def token_ids(
        self, tokenizer: Tokenizer, pairs: Sequence[Pair], *, instruction: str | None = None
    ) -> list[list[int]]:
        """The token ids of each pair. Special tokens that a text spells stay text, those of an instruction too.

        Raises:
            RequestError: a text cannot be encoded, or the checkpoint takes no instruction.
            TemplateError: the chat template failed, or leaves out a text.
        """
        self.check_instruction(instruction)
        if self.lowers_case:
            pairs = [Pair(query=lowered(pair.query), document=lowered(pair.document)) for pair in pairs]
        if self.form == "pair":
            return tokenizer.encode_pairs(
                [self.prompt + pair.query for pair in pairs], [pair.document for pair in pairs]
            )
        asked = self.prompt if instruction is None else tokenizer.protect(instruction)
        prompts = [
            self._asked(tokenizer, asked, tokenizer.protect(pair.query), tokenizer.protect(pair.document))
            for pair in pairs
        ]
        return tokenizer.encode_batch(prompts, add_special_tokens=False)

    def relevance(self, values: FloatArray) -> Float64Array:
        """The scores [N] of the values of a forward pass: the log probabilities of yes and no [N, 2], or logits [N, 1]."""
        wide = values.astype(np.float64)
        logits = wide[:, 0] - wide[:, 1] if self.label_ids else wide[:, 0]
        scores: Float64Array = logits if self.activation == "Identity" else 0.5 * (1.0 + np.tanh(0.5 * logits))
        return scores

    def check_instruction(self, instruction: str | None) -> None:
        """Raises RequestError for an instruction to a checkpoint that has no place for one."""
        if instruction is not None and self.form == "pair":
            raise RequestError("this checkpoint takes a query and a document and no instruction; leave it out")

    def max_len(self, max_model_len: int) -> int:
        """The most tokens that a pair may have in a model that takes `max_model_len`, less the
        answer if one is scored."""
        room = max_model_len - max(map(len, self.label_ids), default=0)
        return room if self.max_tokens is None else min(self.max_tokens, room)

    def _asked(self, tokenizer: Tokenizer, instruction: str, query: str, document: str) -> str:
        if self.chat is not None:
            return rendered(tokenizer, self.chat, system=instruction, query=query, document=document)
        return f"{_BEFORE}<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}{_AFTER}"


def reranking_of(folder: Path, config: ModelConfig, tokenizer: Tokenizer, form: AskedForm = "auto") -> Reranking:
    """How the checkpoint in `folder` is asked; `form` wins over what its files say.

    Raises:
        ConfigError: it is not a reranker, or its files cannot be used.
    """
    files = SentenceFiles.read(folder)
    is_causal = _check_head(folder, config, files)
    chosen = _chosen_form(folder, config, tokenizer, files) if form == "auto" else form
    if chosen == "qwen3-reranker" and any(tokenizer.id_of(token) is None for token in _CHATML):
        raise ConfigError(
            f"{folder}: its tokenizer lacks {' or '.join(_CHATML)}, which Qwen3-Reranker's template is made of"
        )
    default = files.default_prompt_name
    own_prompt = "" if default is None else files.prompts[default]
    return Reranking(
        form=chosen,
        label_ids=_answers(folder, files, tokenizer) if is_causal else (),
        activation="Identity" if files.score_activation() == "Identity" else "Sigmoid",
        prompt=DEFAULT_INSTRUCTION if chosen == "qwen3-reranker" else own_prompt,
        max_tokens=files.max_seq_length,
        lowers_case=files.lowers_case,
        chat=files.chat if chosen == "chat" else None,
    )


def _check_head(folder: Path, config: ModelConfig, files: SentenceFiles) -> bool:
    """Whether the checkpoint answers yes or no, instead of with a head of one label.

    Raises:
        ConfigError: it does neither.
    """
    kinds = [module.kind for module in files.modules]
    if config.head == "causal":
        if kinds not in ([], ["LogitScore"]) or (files.has_modules and not kinds):
            raise ConfigError(
                f"{folder}/modules.json lists {', '.join(['Transformer', *kinds])}; a causal reranker has LogitScore alone"
            )
        return True
    if config.head != "sequence-classification":
        has = f"no task head: {NO_HEAD}" if config.head == "embedding" else f"a {config.head} head"
        raise ConfigError(
            f"{folder} has {has}; a reranker is causal or has a sequence-classification head of one label"
        )
    if config.num_labels != 1 or kinds:
        has = ", ".join(kinds) if kinds else f"{config.num_labels} labels"
        raise ConfigError(f"{folder} has a sequence-classification head with {has}; that of a reranker has one label")
    return False


def _chosen_form(folder: Path, config: ModelConfig, tokenizer: Tokenizer, files: SentenceFiles) -> RerankForm:
    if files.has_modules:
        return "pair" if files.chat is None else "chat"
    is_chatml = all(tokenizer.id_of(token) is not None for token in _CHATML)
    if FAMILIES[config.model_type].has_retrievers and is_chatml:
        return "qwen3-reranker"
    if config.head == "causal":
        raise ConfigError(
            f"{folder} is a causal {config.model_type}{'' if is_chatml else ' without ChatML'}, and its files do not say "
            "how it is asked for relevance: give a Qwen3-Reranker, or a cross-encoder that sentence-transformers saved"
        )
    return "pair"


def _answers(folder: Path, files: SentenceFiles, tokenizer: Tokenizer) -> tuple[tuple[int], tuple[int]]:
    """The tokens of yes and no: those of LogitScore, or the tokens of these names, as the card has them."""
    if files.modules:
        settings: ConfigFields = files.modules[0].settings
        yes, no = settings.token_id("true_token_id"), settings.token_id("false_token_id")
        if yes is None or no is None:
            raise settings.error(
                "true_token_id" if yes is None else "false_token_id", "a token id: scores are yes next to no here"
            )
        return (yes,), (no,)
    found = tokenizer.id_of("yes"), tokenizer.id_of("no")
    if found[0] is None or found[1] is None:
        raise ConfigError(f"{folder}: its tokenizer has no token yes or none no, which a causal reranker answers with")
    return (found[0],), (found[1],)
