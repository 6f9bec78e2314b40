"""A model in this process, as it is loaded for online requests."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.online.local import LocalModel
from actors.online.model import FloatArray, OnlineRequest
from actors.work import Asked, EngineSettings, EngineWork, OnePassAnswer
from models import Output, SamplingParams, Scorer
from models.engine.scoring.label_scorer import LabelScorer
from models.engine.shard_processes import SCORED_TOKENS
from models.engine.watchdog import Watchdog
from models.errors import ConfigError, EngineError
from models.tasks.embedding import EmbedOptions
from models.tasks.label_tokens import LabelIds, num_computed
from tests.helpers.actors.serving import load

PROMPTS = ([5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15, 16])


@pytest.mark.parametrize("head", ["causal", "token-classification"])
@pytest.mark.parametrize("clamp", ["none", "prefill"])
def test_step_sizes_have_the_floor_that_is_asked_for(
    tiny_checkpoint: Callable[..., Path], head: str, clamp: str
) -> None:
    floored = str(tiny_checkpoint(head, family="zamba2"))
    free = str(tiny_checkpoint(head, family="zamba2", time_step_min=1e-9))  # the same weights
    model = LocalModel.load(
        EngineSettings(path=floored, dtype="float32", model_options={"mamba_dt_clamp": clamp}, max_num_seqs=4)
    )
    try:
        found = asyncio.run(model.score(PROMPTS))
    finally:
        model.close()
    expected = Scorer.from_pretrained(free, dtype="float32").score(PROMPTS)
    is_free = [np.array_equal(mine, theirs.numpy()) for mine, theirs in zip(found, expected, strict=True)]
    assert is_free == [clamp == "none"] * len(PROMPTS)


def test_the_budget_of_online_steps_reaches_the_engine(tiny_checkpoint: Callable[..., Path]) -> None:
    settings = EngineSettings(path=str(tiny_checkpoint()), online_batched_tokens=1 << 20)
    with pytest.raises(
        ConfigError, match="online_batched_tokens was 1048576; it must be at most max_num_batched_tokens"
    ):
        LocalModel.load(settings)


@pytest.mark.parametrize("head", ["causal", "classifier"])
def test_a_product_has_the_threads_of_the_settings(causal_path: Path, classifier_path: Path, head: str) -> None:
    path, threads = causal_path if head == "causal" else classifier_path, torch.get_num_threads()
    model = LocalModel.load(EngineSettings(path=str(path), dtype="float32", num_threads=threads + 1))
    try:
        assert torch.get_num_threads() == threads + 1
    finally:
        model.close()


def test_a_model_tells_whether_it_makes_text(causal: LocalModel, classifier_path: Path) -> None:
    classifier = load(classifier_path)
    assert (causal.is_generative, classifier.is_generative) == (True, False)
    classifier.close()


@pytest.mark.slow
def test_a_model_over_two_shards_generates_scores_and_embeds_at_once(causal_path: Path) -> None:
    prompts = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16]]
    params = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)

    async def generate(model: LocalModel, index: int) -> list[int]:
        request = OnlineRequest(request_id=f"r{index}", token_ids=tuple(prompts[index]), params=params)
        return [token async for delta in model.stream(request) for token in delta.token_ids]

    async def everything(model: LocalModel) -> tuple[list[list[int]], FloatArray, FloatArray]:
        texts = asyncio.gather(*(generate(model, index) for index in range(len(prompts))))
        labels = model.score_labels(prompts, [((3,), (4, 5))] * len(prompts))
        return await asyncio.gather(texts, labels, model.embed(prompts, EmbedOptions()))

    found = []
    for size in (1, 2):
        model = LocalModel.load(EngineSettings(path=str(causal_path), dtype="float32", tensor_parallel_size=size))
        try:
            found.append(asyncio.run(everything(model)))
        finally:
            model.close()
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-4)
    np.testing.assert_allclose(found[1][2], found[0][2], atol=1e-4)


def test_sequences_that_begin_alike_take_fewer_turns(causal_path: Path) -> None:
    """What they have in common counts once, and is computed once."""
    model = LocalModel.load(EngineSettings(path=str(causal_path), dtype="float32", max_model_len=400))
    common = [3 + place % 40 for place in range(300)]
    prompts = [[*common, *range(5, 5 + place)] for place in range(1, 31)]
    work = EngineWork.of("w", [np.array(ids, np.int32) for ids in prompts], [0] * len(prompts))
    try:
        got = asyncio.run(model.compute(work, Asked(labels=((3,), (4, 5)))))
    finally:
        model.close()
    computed = [
        len(ids) - one.num_cached_tokens
        for ids, one in zip(prompts, got, strict=True)
        if isinstance(one, OnePassAnswer)
    ]
    assert len(computed) == len(prompts)
    assert sum(computed) < 2 * 300 + sum(range(1, 31)) + 30 * 16


def test_labels_behind_a_prompt_count_in_its_turn(causal_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a small request with many labels would keep the model from all others."""
    turns: list[int] = []
    score_own_labels = Scorer.score_own_labels

    def counted(self: Scorer, prompts: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> list[torch.Tensor]:
        turns.append(sum(map(len, prompts)) + sum(map(num_computed, labels)))
        return score_own_labels(self, prompts, labels)

    monkeypatch.setattr(Scorer, "score_own_labels", counted)
    prompts = [[5 + number, 6] for number in range(20)]
    labels: LabelIds = tuple((7, 8 + number, 9) for number in range(100))
    own: list[LabelIds] = [labels if number % 3 else labels[::-1] for number in range(20)]
    model = load(causal_path)
    try:
        found = asyncio.run(model.score_labels(prompts, own))
    finally:
        model.close()
    assert sum(turns) == 20 * 202
    assert max(turns) <= SCORED_TOKENS
    expected = Scorer.from_pretrained(causal_path, dtype="float32").score_labels(prompts, labels).numpy()
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_allclose(one, other if number % 3 else other[::-1], atol=1e-5)


def test_rows_of_a_job_with_several_tasks_are_answered_as_each_task_asks(causal_path: Path) -> None:
    """Two of them generate at the same time, from equal prompts."""
    asked = [
        Asked(sampling=SamplingParams(max_tokens=4, temperature=0.0)),
        Asked(labels=((3,), (4, 5))),
        Asked(sampling=SamplingParams(max_tokens=2, temperature=0.0)),
    ]
    prompts = [np.array(ids, np.int32) for ids in PROMPTS]
    alone = EngineWork.of("w", prompts, [0] * len(prompts))
    numbers = [task for task in range(3) for _ in prompts]
    work = EngineWork.of("w", prompts * 3, [0] * len(numbers), tasks=numbers)
    model = LocalModel.load(EngineSettings(path=str(causal_path), dtype="float32"))
    try:
        got = asyncio.run(model.compute(work, Asked(several=tuple(asked))))
        expected = [answer for one in asked for answer in asyncio.run(model.compute(alone, one))]
    finally:
        model.close()
    for mine, theirs in zip(got, expected, strict=True):
        if isinstance(theirs, OnePassAnswer):
            assert isinstance(mine, OnePassAnswer)
            np.testing.assert_allclose(mine.values, theirs.values, atol=1e-5)
        else:
            assert isinstance(mine, Output)
            assert isinstance(theirs, Output)
            assert mine.token_ids == theirs.token_ids


def test_a_pass_of_the_scorer_that_does_not_end_is_noticed(causal_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    causes: list[str] = []
    is_told = threading.Event()

    def on_hang(cause: str) -> None:
        causes.append(cause)
        is_told.set()

    watchdog = Watchdog(0.2, on_hang)
    model = LocalModel.load(EngineSettings(path=str(causal_path), dtype="float32"), watchdog=watchdog)
    try:
        monkeypatch.setattr(LabelScorer, "score", lambda self, leaves, asked: is_told.wait(30) and 1 / 0)
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            asyncio.run(model.score_labels([[5, 6]], [((3,),)]))
    finally:
        model.close()
        watchdog.close()
    assert len(causes) == 1
    assert "engine.step_timeout_s" in causes[0]
