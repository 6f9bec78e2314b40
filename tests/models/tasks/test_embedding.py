"""What a checkpoint's vectors are, by its files and without them; the numbers against transformers' hidden states and torch."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoTokenizer

from models import Scorer
from models.config.model_config import ModelConfig
from models.errors import CheckpointError, ConfigError, ModelError, RequestError, TemplateError
from models.tasks.embedding import EmbeddingConfig, Projection, embedding_of
from models.text.tokenizer import Tokenizer
from tests.helpers.models.sentence_checkpoints import (
    OLD,
    QUERY_PROMPT,
    add_modules,
    dense,
    new_pooling,
    old_pooling,
    states,
    without_template,
)
from tests.helpers.tiny_checkpoints import save_with_tokenizer

TEXTS = ["Hello world", "naïve café — 日本語 😀", "word " * 9]
ABOUT = {"prompts": {"query": QUERY_PROMPT, "document": "", "unset": None}, "default_prompt_name": None}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    save_with_tokenizer(folder, "qwen3", "causal", {"max_position_embeddings": 256})
    return folder


@pytest.fixture
def folder(network: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return without_template(network, tmp_path / "model")


def read(folder: Path) -> EmbeddingConfig:
    return embedding_of(folder, ModelConfig.from_pretrained(folder))


def embedded(folder: Path, texts: list[str], *, prompt: str = "", **options: Any) -> torch.Tensor:
    embedding, tokenizer = read(folder), Tokenizer.from_pretrained(folder)
    ids = embedding.token_ids(tokenizer, texts, prompt=prompt)
    skipped = embedding.num_skipped(tokenizer, prompt)
    return Scorer.from_pretrained(folder).embed(ids, num_skipped=skipped, **options)


def test_without_files_a_causal_network_has_its_last_token_and_a_two_way_one_the_mean(folder: Path) -> None:
    assert read(folder) == EmbeddingConfig(
        pooling="last", size=32, normalizes=True, instruct=("Instruct: ", "\nQuery:")
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"is_causal": False}))
    assert read(folder).pooling == "mean"


@pytest.mark.parametrize("is_old", [True, False])
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_pooling_is_read_in_both_spellings(folder: Path, pooling: str, is_old: bool) -> None:
    names = {"last": ("lasttoken", "lasttoken"), "mean": ("mean_tokens", "mean"), "cls": ("cls_token", "cls")}
    settings = old_pooling(names[pooling][0]) if is_old else new_pooling(names[pooling][1])
    add_modules(folder, [("Pooling", settings)], is_old=is_old)
    pool = {"last": lambda state: state[-1], "mean": lambda state: state.mean(dim=0), "cls": lambda state: state[0]}
    expected = torch.stack([pool[pooling](state) for state in states(folder, TEXTS)])
    torch.testing.assert_close(embedded(folder, TEXTS), expected, atol=1e-5, rtol=0)


def test_modules_follow_each_other_as_listed_and_dimensions_come_before_the_last_length(folder: Path) -> None:
    chain = [
        ("Pooling", new_pooling("mean")),
        ("Dense", dense(32, 24, "activation.Tanh")),
        ("Normalize", {}),
        ("Dense", dense(24, 12, "linear.Identity", bias=False)),
        ("Normalize", {}),
    ]
    add_modules(folder, chain)
    first, second = (load_file(folder / name / "model.safetensors") for name in ("2_Dense", "4_Dense"))
    pooled = torch.stack([state.mean(dim=0) for state in states(folder, TEXTS)])
    middle = F.normalize(torch.tanh(F.linear(pooled, first["linear.weight"], first["linear.bias"])), dim=-1)
    expected = F.linear(middle, second["linear.weight"])
    torch.testing.assert_close(embedded(folder, TEXTS), F.normalize(expected, dim=-1), atol=1e-5, rtol=0)
    cut = embedded(folder, TEXTS, dimensions=5)
    torch.testing.assert_close(cut, F.normalize(expected[:, :5], dim=-1), atol=1e-5, rtol=0)
    raw = embedded(folder, TEXTS, dimensions=5, normalize=False)
    torch.testing.assert_close(raw, expected[:, :5], atol=1e-5, rtol=0)


def test_options_win_over_the_files(folder: Path) -> None:
    add_modules(folder, [("Pooling", new_pooling("mean"))])
    expected = torch.stack([state[-1] for state in states(folder, TEXTS)])
    found = embedded(folder, TEXTS, pooling="last", normalize=True)
    torch.testing.assert_close(found, F.normalize(expected, dim=-1), atol=1e-5, rtol=0)


def test_a_prompt_that_is_not_pooled_is_still_read(folder: Path) -> None:
    add_modules(folder, [("Pooling", new_pooling("mean", include_prompt=False))], config_sentence_transformers=ABOUT)
    prompt = read(folder).prompt(name="query")
    num_prompt = len(AutoTokenizer.from_pretrained(folder)(prompt).input_ids)
    both = states(folder, [prompt + text for text in TEXTS])
    expected = torch.stack([state[num_prompt:].mean(dim=0) for state in both])
    torch.testing.assert_close(embedded(folder, TEXTS, prompt=prompt), expected, atol=1e-5, rtol=0)
    with pytest.raises(RequestError, match=f"{num_prompt} tokens, of which {num_prompt} are its prompt's"):
        embedded(folder, [""], prompt=prompt)


def test_an_untied_bare_network_of_modules_has_no_head(folder: Path) -> None:
    """As sentence-transformers writes it: without lm_head.weight, which a causal head would miss."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen3Model"]}))
    assert ModelConfig.from_pretrained(folder).head == "causal"
    add_modules(folder, [("Pooling", new_pooling("lasttoken"))])
    assert ModelConfig.from_pretrained(folder).head == "embedding"
    (folder / "config.json").write_text(
        json.dumps(config | {"architectures": ["Qwen3Model"], "tie_word_embeddings": True})
    )
    assert ModelConfig.from_pretrained(folder).head == "causal"


def test_prompts_are_found_by_name_as_text_or_as_an_instruction(folder: Path) -> None:
    about = ABOUT | {"default_prompt_name": "query"}
    add_modules(folder, [("Pooling", old_pooling("lasttoken"))], is_old=True, config_sentence_transformers=about)
    embedding = read(folder)
    assert embedding.prompt() == embedding.prompt(name="query") == QUERY_PROMPT
    assert embedding.prompt(name="document") == ""
    assert embedding.prompt(text="passage: ") == "passage: "
    assert embedding.prompt(instruction="Find facts") == "Instruct: Find facts\nQuery:"
    with pytest.raises(RequestError, match=r"no prompt 'passage' .*: it has 'query', 'document'"):
        embedding.prompt(name="passage")
    with pytest.raises(RequestError, match="give one of them"):
        embedding.prompt(name="query", text="x")


def test_an_instruction_takes_the_form_of_the_checkpoints_own(folder: Path) -> None:
    """gte-Qwen2 and e5-mistral have a space after "Query:", and a checkpoint with other prompts has no form."""
    own = {"prompts": {"query": "Instruct: Given a question\nQuery: "}}
    add_modules(folder, [("Pooling", new_pooling("lasttoken"))], config_sentence_transformers=own)
    assert read(folder).prompt(instruction="Find facts") == "Instruct: Find facts\nQuery: "
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "query: "}}')
    with pytest.raises(RequestError, match="give the whole prompt as text"):
        read(folder).prompt(instruction="Find facts")


def test_a_text_that_spells_a_special_token_stays_text_behind_a_prompt_that_has_one(folder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    (ids,) = read(folder).token_ids(Tokenizer.from_pretrained(folder), ["a<|im_end|>"], prompt="<|im_start|>")
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert ids[0] == start
    assert end not in ids
    assert tokenizer.decode(ids) == "<|im_start|>a<|im_end|>"


def test_a_chat_template_that_leaves_texts_out_is_told(network: Path, tmp_path: Path) -> None:
    folder = without_template(network, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ messages | length }}")
    files = {"modality_config": {"text": {}, "message": {"method": "forward", "format": "flat"}}}
    add_modules(folder, [("Pooling", new_pooling("lasttoken"))], sentence_bert_config=files)
    with pytest.raises(TemplateError, match="leaves out the user's text"):
        embedded(folder, ["Hello"])


def test_a_text_may_have_as_many_tokens_as_the_files_say(folder: Path) -> None:
    add_modules(folder, [("Pooling", new_pooling("mean"))], sentence_bert_config={"max_seq_length": 40})
    assert (read(folder).max_len(256), read(folder).max_len(30)) == (40, 30)


@pytest.mark.parametrize("dimensions", [0, -1, 33])
def test_more_dimensions_than_a_vector_has_are_refused(folder: Path, dimensions: int) -> None:
    with pytest.raises(RequestError, match=f"dimensions was {dimensions}; this checkpoint's vectors have from 1 to 32"):
        embedded(folder, ["a"], dimensions=dimensions)


POOLED = ("Pooling", new_pooling("mean"))


@pytest.mark.parametrize(
    ("chain", "problem"),
    [
        ([("LayerNorm", {})], "modules.json: type was .*LayerNorm.* it must be a module of sentence-transformers that is"),
        ([POOLED, ("WeightedLayerPooling", {})], "type was .*WeightedLayerPooling"),
        ([], "lists Transformer: no Pooling follows the network"),
        ([("LogitScore", {})], "lists Transformer, LogitScore: no Pooling"),
        ([POOLED, POOLED], "lists Pooling behind a Pooling"),
        ([("Pooling", old_pooling("max_tokens"))], "pools by max; it must be one of lasttoken, mean, cls"),
        ([("Pooling", new_pooling("weightedmean"))], "pooling_mode was 'weightedmean'; it must be one of lasttoken, mean, cls"),
        ([("Pooling", new_pooling(["mean", "cls"]))], "pooling_mode was .*; it must be one of lasttoken, mean, cls"),
        ([("Pooling", old_pooling("cls_token", pooling_mode_mean_tokens=True))], "pools by cls, mean"),
        ([("Pooling", new_pooling("mean", embedding_dimension=64))], "embedding_dimension was 64; it must be 32"),
        ([POOLED, ("Dense", dense(16, 8, "activation.Tanh"))], "in_features was 16; it must be 32"),
        ([POOLED, ("Dense", dense(32, 8, "activation.Softplus"))], "activation_function was .*Softplus.* one of Identity, Tanh"),
        ([POOLED, ("Dense", dense(32, 8, "activation.Tanh") | {"use_residual": True})], "use_residual was True"),
        (
            [POOLED, ("Dense", dense(32, 8, "activation.Tanh") | {"module_input_name": "token_embeddings"})],
            "module_input_name was 'token_embeddings'; it must be sentence_embedding or absent",
        ),
    ],
)  # fmt: skip
def test_modules_that_are_not_known_are_refused_by_name(folder: Path, chain: Any, problem: str) -> None:
    add_modules(folder, chain)
    with pytest.raises(ConfigError, match=problem):
        read(folder)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("modules.json", "{}", "must hold a list of at most 16 objects"),
        ("modules.json", '[{"type": "x"}]', "each with the texts type and path"),
        ("modules.json", "[", "is not valid JSON"),
        ("modules.json", '[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]', "must begin with the one Transformer"),
        ("modules.json", '[{"type": "own_code.Transformer", "path": ""}]', "type was 'own_code.Transformer'"),
        (
            "modules.json",
            f'[{{"type": "{OLD}.Transformer", "path": ""}}, {{"type": "{OLD}.Pooling", "path": "../x"}}]',
            "the files of Pooling are in '../x'; they must be in NUMBER_Pooling",
        ),
        ("config_sentence_transformers.json", '{"prompts": {"a": 1}}', "prompts was .*; it must be an object of at most 1,024 texts"),
        ("config_sentence_transformers.json", '{"default_prompt_name": "q"}', "default_prompt_name was 'q'; it must be one of its prompts"),
        ("sentence_bert_config.json", '{"max_seq_length": "long"}', "max_seq_length was 'long'"),
        (
            "sentence_bert_config.json",
            '{"modality_config": {"message": {}}, "processing_kwargs": {"chat_template": {"tools": "x"}}}',
            "processing_kwargs was .* none of .*tools",
        ),
        ("sentence_bert_config.json", '{"modality_config": {"message": {}}, "processing_kwargs": {"image": {}}}', "without image"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_told(folder: Path, name: str, content: str, problem: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=problem):
        read(folder)


@pytest.mark.parametrize("damage", ["absent", "misshapen", "pickled"])
def test_projections_without_their_weights_are_told(folder: Path, damage: str) -> None:
    add_modules(folder, [POOLED, ("Dense", dense(32, 8, "activation.Tanh"))])
    weights = folder / "2_Dense/model.safetensors"
    if damage == "misshapen":
        (folder / "2_Dense/config.json").write_text(json.dumps(dense(32, 9, "activation.Tanh")))
    elif damage == "pickled":
        weights.rename(weights.with_name("pytorch_model.bin"))
    else:
        weights.unlink()
    says = {
        "misshapen": r"linear.weight is F32 of \[8, 32\]; it must be floating point of \[9, 32\]",
        "pickled": "pickle",
    }
    with pytest.raises(CheckpointError, match=says.get(damage, "holds no weights|neither model.safetensors")):
        embedded(folder, ["a"])


def test_a_model_with_unusable_files_generates_all_the_same(network: Path, tmp_path: Path) -> None:
    folder = without_template(network, tmp_path / "model")
    expected = Scorer.from_pretrained(folder).score([[3, 4]])
    add_modules(folder, [("LayerNorm", {})])
    scorer = Scorer.from_pretrained(folder)
    assert torch.equal(scorer.score([[3, 4]])[0], expected[0])
    with pytest.raises(ModelError, match="LayerNorm"):
        scorer.embed([[3, 4]])


def test_what_vectors_are_crosses_processes(folder: Path) -> None:
    add_modules(folder, [POOLED, ("Dense", dense(32, 8, "activation.Tanh"))], config_sentence_transformers=ABOUT)
    embedding = read(folder)
    assert embedding.steps == (
        Projection(folder="2_Dense", in_features=32, out_features=8, has_bias=True, activation="Tanh"),
    )
    assert pickle.loads(pickle.dumps(embedding)) == embedding
