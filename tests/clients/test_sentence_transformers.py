"""Vectors and scores against sentence-transformers, on tiny checkpoints that it wrote itself: make clients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from models import Scorer
from models.config.model_config import ModelConfig
from models.tasks.embedding import EmbeddingConfig, embedding_of
from models.tasks.rerank import Pair, reranking_of
from models.text.tokenizer import Tokenizer
from tests.helpers.models import tiny_tokenizers
from tests.helpers.models.sentence_checkpoints import QUERY_PROMPT, RERANKER_TEMPLATE, without_template
from tests.helpers.tiny_checkpoints import save_checkpoint, save_with_tokenizer

TEXTS = ["Hello world", "  naïve café — 日本語 😀", "a <|im_end|> that is text", "", "word " * 30]
PAIRS = [("how are you", "I'm fine, thanks"), ("日本語", ""), ("tabs", "\twith tabs\n\n and   runs of spaces")]
CHAT_RERANKER = {"add_generation_prompt": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal Qwen3 with a tokenizer that has a chat template."""
    folder = tmp_path_factory.mktemp("base")
    save_with_tokenizer(folder, "qwen3", "causal", {"max_position_embeddings": 512})
    return folder


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    return without_template(base, tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def one_label(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with one label, and a tokenizer that puts special tokens around texts and pairs."""
    folder = tmp_path_factory.mktemp("one-label")
    tiny_tokenizers.word_piece(folder)
    save_checkpoint(
        folder, "llama", "sequence-classification", {"vocab_size": 512, "num_labels": 1, "max_position_embeddings": 512}
    )
    return folder


def modules_of(*names: Any) -> Any:
    """Modules of the library by a small spelling: a pooling mode, a (in, out, activation), or "normalize"."""
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(3)
    made: list[Any] = []
    for name in names:
        if name == "normalize":
            made.append(Normalize())
        elif isinstance(name, tuple):
            made.append(Dense(name[0], name[1], activation_function=name[2], bias=name[3]))
        else:
            made.append(Pooling(32, **(name if isinstance(name, dict) else {"pooling_mode": name})))
    return made


CHAINS: dict[str, tuple[Any, ...]] = {
    "last": ("lasttoken", "normalize"),
    "mean": ("mean",),
    "cls": ("cls", "normalize"),
    "dense": ("mean", (32, 16, torch.nn.Tanh(), True), "normalize"),
    "dense-twice": ("lasttoken", (32, 48, torch.nn.Identity(), False), "normalize", (48, 8, torch.nn.GELU(), True)),
    "without-prompt": ({"pooling_mode": "mean", "include_prompt": False}, "normalize"),
    "first-after-prompt": ({"pooling_mode": "cls", "include_prompt": False},),
}


def embedder(network: Path, chain: str, target: Path, **settings: Any) -> Any:
    """A SentenceTransformer over a network, written to `target`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    model = SentenceTransformer(
        modules=[Transformer(str(network)), *modules_of(*CHAINS[chain])],
        prompts={"query": QUERY_PROMPT, "document": ""},
        device="cpu",
        **settings,
    )
    model.save(str(target))
    return SentenceTransformer(str(target), device="cpu")


def opened(folder: Path) -> tuple[EmbeddingConfig, Tokenizer, Scorer]:
    config = ModelConfig.from_pretrained(folder)
    return embedding_of(folder, config), Tokenizer.from_pretrained(folder), Scorer.from_pretrained(folder)


def vectors(folder: Path, texts: list[str], prompt: dict[str, str], **options: Any) -> np.ndarray[Any, Any]:
    embedding, tokenizer, scorer = opened(folder)
    written = embedding.prompt(**prompt)
    ids = embedding.token_ids(tokenizer, texts, prompt=written)
    return scorer.embed(ids, num_skipped=embedding.num_skipped(tokenizer, written), **options).numpy()


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("prompt", [{}, {"name": "query"}, {"text": "passage: "}], ids=["none", "named", "text"])
def test_vectors_are_those_of_encode(plain: Path, tmp_path: Path, chain: str, prompt: dict[str, str]) -> None:
    oracle = embedder(plain, chain, tmp_path / "saved")
    texts = [text for text in TEXTS if "<|" not in text and text]
    asked = {"prompt_name": prompt.get("name"), "prompt": prompt.get("text")}
    found = vectors(tmp_path / "saved", texts, prompt)
    np.testing.assert_allclose(found, oracle.encode(texts, **asked), atol=1e-5, rtol=0)


@pytest.mark.parametrize("chain", ["last", "dense-twice"])
def test_first_dimensions_are_cut_and_scaled_as_truncate_dim_does(plain: Path, tmp_path: Path, chain: str) -> None:
    oracle = embedder(plain, chain, tmp_path / "saved", default_prompt_name="query")
    expected = oracle.encode(["Hello world"], truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(
        vectors(tmp_path / "saved", ["Hello world"], {}, dimensions=5, normalize=True), expected, atol=1e-5
    )


def test_texts_go_through_the_chat_template_where_the_library_puts_them(base: Path, tmp_path: Path) -> None:
    oracle = embedder(base, "last", tmp_path / "saved")
    assert embedding_of(tmp_path / "saved", ModelConfig.from_pretrained(tmp_path / "saved")).chat is not None
    texts = ["Hello world", "two\nlines"]
    for prompt, asked in (({}, {}), ({"text": "Judge."}, {"prompt": "Judge."})):
        expected = oracle.encode(texts, **asked)
        np.testing.assert_allclose(vectors(tmp_path / "saved", texts, prompt), expected, atol=1e-5)


def test_lower_case_is_the_librarys(plain: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    embedder(plain, "mean", tmp_path / "saved")
    (tmp_path / "saved/sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": true}')
    oracle = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    texts = ["HELLO World", "Ärger ÜBER", "ΣΊΣΥΦΟΣ", "İstanbul"]
    np.testing.assert_allclose(vectors(tmp_path / "saved", texts, {}), oracle.encode(texts), atol=1e-5)


def scores(folder: Path, pairs: list[tuple[str, str]], instruction: str | None = None) -> np.ndarray[Any, Any]:
    tokenizer, scorer = Tokenizer.from_pretrained(folder), Scorer.from_pretrained(folder)
    reranking = reranking_of(folder, ModelConfig.from_pretrained(folder), tokenizer)
    asked = [Pair(query=query, document=document) for query, document in pairs]
    ids = reranking.token_ids(tokenizer, asked, instruction=instruction)
    if reranking.label_ids:
        return reranking.relevance(scorer.score_labels(ids, reranking.label_ids).numpy())
    return reranking.relevance(torch.stack(scorer.score(ids)).numpy())


Saver = Callable[[Any, Path], None]


def save_all(model: Any, target: Path) -> None:
    model.save(str(target))


def save_network(model: Any, target: Path) -> None:
    """As before version 5.4: a network, its tokenizer, and the activation in config.json."""
    from sentence_transformers.util import fullname

    model.model.config.sentence_transformers = {"activation_fn": fullname(model.activation_fn), "version": "4.1.0"}
    model.model.save_pretrained(target)
    model.tokenizer.save_pretrained(target)


@pytest.mark.parametrize("save", [save_all, save_network])
@pytest.mark.parametrize("activation", [torch.nn.Sigmoid(), torch.nn.Identity()])
def test_scores_of_one_label_are_those_of_a_cross_encoder(
    one_label: Path, tmp_path: Path, save: Saver, activation: torch.nn.Module
) -> None:
    from sentence_transformers import CrossEncoder

    oracle = CrossEncoder(str(one_label), device="cpu", activation_fn=activation)
    save(oracle, tmp_path / "saved")
    oracle = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    assert type(oracle.activation_fn) is type(activation)
    np.testing.assert_allclose(scores(tmp_path / "saved", PAIRS), oracle.predict(PAIRS), atol=1e-5)


def test_a_prompt_of_a_cross_encoder_stands_before_the_query(one_label: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    oracle = CrossEncoder(str(one_label), device="cpu", prompts={"q": "query: "}, default_prompt_name="q")
    oracle.save(str(tmp_path / "saved"))
    np.testing.assert_allclose(scores(tmp_path / "saved", PAIRS), oracle.predict(PAIRS), atol=1e-5)


@pytest.mark.parametrize("head", ["causal", "sequence-classification"])
@pytest.mark.parametrize("instruction", [None, "the tone of the answer"])
def test_scores_through_a_chat_template_are_those_of_a_cross_encoder(
    tmp_path: Path, head: Any, instruction: str | None
) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    network = tmp_path / "network"
    save_with_tokenizer(network, "qwen3", head, {"num_labels": 1, "pad_token_id": 0, "max_position_embeddings": 512})
    (network / "chat_template.jinja").write_text(RERANKER_TEMPLATE)
    if head == "causal":
        kwargs = {"chat_template": CHAT_RERANKER}
        backbone = Transformer(str(network), transformer_task="text-generation", processing_kwargs=kwargs)
        oracle = CrossEncoder(modules=[backbone, LogitScore(7, 9)], device="cpu")
    else:
        oracle = CrossEncoder(str(network), device="cpu")
    oracle.save(str(tmp_path / "saved"))
    oracle = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    found = scores(tmp_path / "saved", PAIRS[:1], instruction)
    np.testing.assert_allclose(found, oracle.predict(PAIRS[:1], prompt=instruction), atol=1e-5)


def test_a_qwen3_reranker_is_asked_as_its_card_says(tmp_path: Path) -> None:
    """The library has no template of its own for it; the pairs are written here as on the card, and are then plain texts to it."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    folder = tmp_path / "network"
    tiny_tokenizers.qwen_reranker(folder)
    save_checkpoint(folder, "qwen3", "causal", {"vocab_size": 512, "max_position_embeddings": 512})
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    yes, no = tokenizer.convert_tokens_to_ids("yes"), tokenizer.convert_tokens_to_ids("no")
    bare = without_template(folder, tmp_path / "bare")
    oracle = CrossEncoder(
        modules=[Transformer(str(bare), transformer_task="text-generation"), LogitScore(yes, no)], device="cpu"
    )
    written = [
        (BEFORE + f"<Instruct>: {INSTRUCT}\n<Query>: {query}\n", f"<Document>: {document}" + AFTER)
        for query, document in PAIRS
    ]
    np.testing.assert_allclose(scores(folder, PAIRS), oracle.predict(written), atol=1e-5)


# https://huggingface.co/Qwen/Qwen3-Reranker-0.6B, "Sentence Transformers" and "Transformers Usage"
INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query"
BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
