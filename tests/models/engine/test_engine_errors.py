"""What the engine refuses, in which words, and that it goes on working afterwards; and what it does when a step fails."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import Engine, Output, SamplingParams
from models.engine.options import EngineOptions
from models.errors import CheckpointError, ConfigError, EngineError, RequestError
from models.loading.load import LoadedModel
from tests.helpers.models.tiny_engine import GREEDY, MakeEngine, blocks, failing_after, prompts, tokens

REFUSED: dict[str, tuple[list[int], dict[str, Any], str]] = {
    "empty": ([], {}, "no tokens"),
    "too long": ([5] * 110, {}, r"110 tokens and max_tokens is 20, together 130; the limit is 128"),
    "a token id too large": ([5, 96], {}, "token ids from 5 to 96; the vocabulary has 0 to 95"),
    "a negative token id": ([5, -1], {}, "token ids from -1 to 5"),
    "a stop id too large": ([5], {"stop_token_ids": (96,)}, "stop_token_ids holds token ids from 96 to 96"),
    "stop strings": ([5], {"stop": ("x",)}, "stop strings need a tokenizer"),
    "nothing left to draw": ([5], {"stop_token_ids": tuple(range(96)), "min_tokens": 1}, "bar the whole vocabulary"),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_a_request_that_cannot_be_served_is_refused_and_the_engine_goes_on(
    make_engine: MakeEngine, alone: list[Output], kind: str
) -> None:
    token_ids, fields, message = REFUSED[kind]
    engine = make_engine()
    params = [GREEDY, replace(GREEDY, **fields)]
    with pytest.raises(RequestError, match=message):
        engine.generate([prompts()[2], token_ids], params)
    assert not engine.has_work
    assert tokens(engine.generate(prompts(), GREEDY)) == tokens(alone)


def test_a_request_larger_than_the_cache_is_refused(make_engine: MakeEngine) -> None:
    engine = make_engine(**blocks(10, 4))
    with pytest.raises(RequestError, match="need 53 tokens of cache; the cache holds 40"):
        engine.generate([prompts()[3]], GREEDY)
    assert len(engine.generate([prompts()[2]], GREEDY)[0].token_ids) == 20


def test_a_text_prompt_needs_a_tokenizer(make_engine: MakeEngine) -> None:
    with pytest.raises(RequestError, match=r"no tokenizer\.json"):
        make_engine().generate(["hello"], GREEDY)


def test_prompts_and_parameters_must_be_as_many(make_engine: MakeEngine) -> None:
    with pytest.raises(RequestError, match="2 prompts came with 3"):
        make_engine().generate(prompts()[:2], [GREEDY] * 3)


def test_a_request_id_in_use_is_refused_and_free_again_afterwards(make_engine: MakeEngine, alone: list[Output]) -> None:
    engine = make_engine()
    engine.add("same", prompts()[1], GREEDY)
    with pytest.raises(RequestError, match="'same' is in use"):
        engine.add("same", prompts()[2], GREEDY)
    assert tokens([each.answer for each in steps(engine)]) == tokens(alone[1:2])
    engine.add("same", prompts()[2], GREEDY)
    engine.abort("same")
    steps(engine)


def steps(engine: Engine) -> list[Any]:
    brought: list[Any] = []
    while engine.has_work:
        brought += engine.step()
    return brought


def test_generate_does_not_swallow_what_requests_of_others_bring(make_engine: MakeEngine, alone: list[Output]) -> None:
    engine = make_engine()
    engine.add("other", prompts()[1], GREEDY)
    with pytest.raises(RequestError, match=r"unfinished requests from add\(\): 1"):
        engine.generate([prompts()[2]], GREEDY)
    assert tokens([steps(engine)[-1].answer]) == tokens(alone[1:2])
    assert len(engine.generate([prompts()[2]], GREEDY)) == 1


def test_a_prompt_of_a_wrong_type_leaves_nothing_behind(make_engine: MakeEngine) -> None:
    engine = make_engine()
    wrong: Any = [5, "six"]
    with pytest.raises(TypeError):
        engine.generate([prompts()[2], wrong], GREEDY)
    assert not engine.has_work
    assert len(engine.generate([prompts()[2]], GREEDY)) == 1


def test_generate_that_is_interrupted_leaves_nothing_behind(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    step, calls = engine.step, iter(range(100))

    def interrupted() -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return step()

    with monkeypatch.context() as patch:
        patch.setattr(engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.generate(prompts(), GREEDY)
    assert engine.stats.num_blocks_held == 0
    assert len(engine.generate(prompts(), GREEDY)) == 6


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(make_engine: MakeEngine, seed: int) -> None:
    engine = make_engine()
    with pytest.raises(RequestError, match=r"seed was .*; it must be from 0 to 2\*\*63 - 1"):
        engine.add("a", prompts()[1], replace(GREEDY, temperature=1.0), seed=seed)
    assert not engine.has_work


def test_more_alternatives_than_tokens_are_all_the_tokens(make_engine: MakeEngine) -> None:
    params = replace(GREEDY, max_tokens=2, logprobs=100, prompt_logprobs=100)
    [output] = make_engine().generate([prompts()[2]], params)
    assert output.logprobs is not None
    assert output.prompt_logprobs is not None
    assert {len(entry.top) for entry in [*output.logprobs, *output.prompt_logprobs] if entry is not None} == {96}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_tokens": 0}, "max_tokens was 0; it must be at least 1"),
        ({"min_tokens": 17}, "min_tokens was 17; it must be from 0 to max_tokens"),
        ({"temperature": -0.1}, "temperature was -0.1"),
        ({"temperature": float("nan")}, "temperature was nan"),
        ({"top_k": -1}, "top_k was -1"),
        ({"top_p": 0.0}, "top_p was 0.0"),
        ({"top_p": 1.1}, "top_p was 1.1"),
        ({"min_p": 1.5}, "min_p was 1.5"),
        ({"stop": "word"}, "stop was 'word'; it must be a list of strings"),
        ({"stop": ("",)}, "none of them empty"),
        ({"stop": (5,)}, r"stop was \(5,\); it must be a list of strings"),
        ({"seed": -1}, "seed was -1"),
        ({"logprobs": 101}, "logprobs was 101; it must be from 0 to 100"),
        ({"prompt_logprobs": -1}, "prompt_logprobs was -1"),
    ],
)
def test_sampling_parameters_out_of_range_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SamplingParams(**fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size was 0; it must be at least 1"),
        ({"block_size": -4}, "block_size was -4"),
        ({"max_num_seqs": 0}, "max_num_seqs was 0"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens was 0"),
        ({"max_num_batched_tokens": -1}, "max_num_batched_tokens was -1"),
        ({"online_batched_tokens": 0}, "online_batched_tokens was 0; it must be at least 1"),
        ({"max_num_batched_tokens": 8, "online_batched_tokens": 9}, "was 9; it must be at most max_num_batched_tokens"),
        ({"max_model_len": 0}, "max_model_len was 0"),
        ({"cache_bytes": 0}, "cache_bytes was 0"),
        ({"gpu_memory_fraction": 0.0}, "gpu_memory_fraction was 0.0; it must be over 0 and at most 1"),
        ({"gpu_memory_fraction": 1.5}, "gpu_memory_fraction was 1.5"),
    ],
)
def test_engine_options_out_of_range_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineOptions(**options)


def test_more_online_tokens_than_a_step_of_this_device_has_are_refused(make_engine: MakeEngine) -> None:
    with pytest.raises(ConfigError, match=r"online_batched_tokens was 1025; .* which is 1024"):
        make_engine(online_batched_tokens=1025)


@pytest.mark.parametrize(
    ("given", "budget", "seqs", "expected"),
    [(None, 8192, 256, 2048), (None, 1024, 256, 256), (None, 512, 256, 256), (None, 64, 256, 64), (9, 64, 256, 9)],
)
def test_online_steps_have_a_quarter_of_the_budget_but_a_token_for_every_sequence(
    given: int | None, budget: int, seqs: int, expected: int
) -> None:
    assert EngineOptions(online_batched_tokens=given).online_budget(budget, seqs) == expected


def test_a_cache_that_holds_no_block_is_refused_with_the_numbers(make_engine: MakeEngine) -> None:
    with pytest.raises(ConfigError, match=r"2,047 bytes holds no block of 4 tokens, which takes 2,048.*65,536"):
        make_engine(block_size=4, cache_bytes=2047)


def test_a_checkpoint_that_makes_no_text_is_refused(qwen3_checkpoint: Callable[..., Path]) -> None:
    folder = qwen3_checkpoint("token-classification", num_labels=5)
    with pytest.raises(CheckpointError, match="token-classification head, which makes no text"):
        Engine.from_pretrained(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "int3"}, "quantization"),
        ({"dtype": "float8"}, "dtype was 'float8'"),
        ({"max_model_len": 129}, "max_model_len was 129; it must be from 1 to 128"),
    ],
)
def test_arguments_that_cannot_be_honoured_are_refused(
    qwen3_checkpoint: Callable[..., Path], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine.from_pretrained(qwen3_checkpoint("causal"), **arguments)


def test_a_checkpoint_folder_gives_an_engine_with_its_options(
    tmp_path: Path, qwen3_checkpoint: Callable[..., Path]
) -> None:
    shutil.copytree(qwen3_checkpoint("causal"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["max_position_embeddings"] == 128
    options = EngineOptions(cache_bytes=2**20, max_num_seqs=3)
    with Engine.from_pretrained(tmp_path, options=options, block_size=4, max_num_seqs=2, max_model_len=64) as engine:
        assert engine.max_model_len == 64
        assert engine.stats.num_blocks == 2 * 64 // 4  # no more than two whole sequences can use
        assert engine.tokenizer is None
        engine.generate(prompts((3, 4, 5)), GREEDY)


@pytest.mark.parametrize("error", [RuntimeError("no memory"), MemoryError(), TypeError("a bug")])
def test_after_a_failed_step_the_engine_says_so_instead_of_going_on(sharp: LoadedModel, error: Exception) -> None:
    with Engine(failing_after(sharp, 5, error), tokenizer=None, options=EngineOptions(cache_bytes=2**22)) as engine:
        with pytest.raises(EngineError, match=type(error).__name__):
            engine.generate(prompts(), GREEDY)
        for use in (lambda: engine.generate(prompts(), GREEDY), engine.step, lambda: engine.add("a", [5], GREEDY)):
            with pytest.raises(EngineError, match="cannot be used any more"):
                use()
        assert engine.stats.num_blocks_held == 0


def test_an_engine_that_was_interrupted_within_a_step_does_not_go_on_with_results_of_the_wrong_plan(
    sharp: LoadedModel,
) -> None:
    loaded = failing_after(sharp, 5, KeyboardInterrupt())
    with Engine(loaded, tokenizer=None, options=EngineOptions(cache_bytes=2**22)) as engine:
        with pytest.raises(KeyboardInterrupt):
            engine.generate(prompts(), GREEDY)
        with pytest.raises(EngineError, match=r"cannot be used any more: .*KeyboardInterrupt"):
            engine.generate(prompts(), GREEDY)


def test_token_ids_may_be_any_sequence_of_integers(make_engine: MakeEngine, alone: list[Output]) -> None:
    given: list[Any] = [tuple(prompts()[1]), np.array(prompts()[2]), range(5, 9)]
    outputs = make_engine().generate(given, GREEDY)
    assert tokens(outputs[:2]) == tokens(alone[1:3])
    assert [output.num_prompt_tokens for output in outputs] == [len(ids) for ids in given]
