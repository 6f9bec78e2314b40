"""The shell around one engine: what it answers is what the engine in it answers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.engine.backends import GeneratingBackend, ScoringBackend
from actors.engine.core import EngineCore
from actors.work import Asked, EngineAnswer, EngineSettings, EngineWork, FloatArray, OnePassAnswer, Refused
from models import Engine, Output, SamplingParams, Scorer
from models.errors import EngineError, ModelError, RequestError
from models.tasks.embedding import EmbedOptions

PROMPTS = ([5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15, 16])
GREEDY = SamplingParams(max_tokens=6, temperature=0.0)


def work(
    prompts: Sequence[Sequence[int]] = PROMPTS, *, name: str = "w", seeds: Sequence[int] | None = None
) -> EngineWork:
    return EngineWork.of(name, [np.array(ids, np.int32) for ids in prompts], seeds or [0] * len(prompts))


def answers(settings: EngineSettings, *works: EngineWork) -> list[list[EngineAnswer]]:
    """What one actor answers to calls that run at once."""

    async def ask(actor: EngineCore) -> list[list[EngineAnswer]]:
        return list(await asyncio.gather(*map(actor.compute, works)))

    actor = EngineCore(settings)
    try:
        return asyncio.run(ask(actor))
    finally:
        actor.close()


def logits(got: Sequence[EngineAnswer]) -> list[FloatArray]:
    return [answer.values for answer in got if isinstance(answer, OnePassAnswer)]


def test_scores_are_those_of_the_scorer(tiny_checkpoint: Callable[..., Path]) -> None:
    path = str(tiny_checkpoint("token-classification"))
    (got,) = answers(EngineSettings(path=path, dtype="float32"), work())
    expected = Scorer.from_pretrained(path, dtype="float32").score([list(ids) for ids in PROMPTS])
    assert all(np.array_equal(mine, theirs.numpy()) for mine, theirs in zip(logits(got), expected, strict=True))


def test_labels_are_scored_when_there_are_any(tiny_checkpoint: Callable[..., Path]) -> None:
    path = str(tiny_checkpoint("causal"))
    labels = ((20, 2), (21, 22, 2))
    (got,) = answers(EngineSettings(path=path, dtype="float32", asked=Asked(labels=labels)), work())
    expected = Scorer.from_pretrained(path, dtype="float32").score_labels([list(ids) for ids in PROMPTS], labels)
    assert np.array_equal(np.stack(logits(got)), expected.numpy())


def test_requests_with_labels_of_their_own_are_scored_by_those(tiny_checkpoint: Callable[..., Path]) -> None:
    path = str(tiny_checkpoint("causal"))
    labels, own = ((20, 2), (21, 22, 2)), ((23,), (24, 25))
    asked = replace(work(), own_labels={1: own})
    (got,) = answers(EngineSettings(path=path, dtype="float32", asked=Asked(labels=labels)), asked)
    scorer = Scorer.from_pretrained(path, dtype="float32")
    others = scorer.score_labels([PROMPTS[0], PROMPTS[2]], labels).numpy()
    expected = [others[0], scorer.score_labels([PROMPTS[1]], own).numpy()[0], others[1]]
    assert np.array_equal(np.stack(logits(got)), np.stack(expected))


def test_tokens_that_were_computed_for_others_are_counted(tiny_checkpoint: Callable[..., Path]) -> None:
    common = [3 + place % 9 for place in range(70)]
    asked = work([[*common, 20], [*common, 21], [*common, 20]])
    settings = EngineSettings(path=str(tiny_checkpoint("causal")), asked=Asked(labels=((20,), (21,))))
    (got,) = answers(settings, asked)
    assert [answer.num_cached_tokens for answer in got if isinstance(answer, OnePassAnswer)] == [0, 64, 71]


@pytest.mark.parametrize("clamp", ["none", "prefill"])
def test_step_sizes_have_the_floor_that_is_asked_for(tiny_checkpoint: Callable[..., Path], clamp: str) -> None:
    floored = str(tiny_checkpoint("token-classification", family="zamba2"))
    free = str(tiny_checkpoint("token-classification", family="zamba2", time_step_min=1e-9))  # the same weights
    (got,) = answers(EngineSettings(path=floored, dtype="float32", model_options={"mamba_dt_clamp": clamp}), work())
    expected = Scorer.from_pretrained(free, dtype="float32").score([list(ids) for ids in PROMPTS])
    is_free = [np.array_equal(mine, theirs.numpy()) for mine, theirs in zip(logits(got), expected, strict=True)]
    assert is_free == [clamp == "none"] * len(PROMPTS)


def test_generation_has_the_floor_that_is_asked_for(tiny_checkpoint: Callable[..., Path]) -> None:
    floored = str(tiny_checkpoint(family="zamba2"))
    sampling = replace(GREEDY, logprobs=0)
    settings = EngineSettings(
        path=floored,
        dtype="float32",
        model_options={"mamba_dt_clamp": "none"},
        asked=Asked(sampling=sampling),
        max_num_seqs=4,
    )
    (got,) = answers(settings, work())
    found = [answer.logprobs for answer in got if isinstance(answer, Output)]
    prompts = [list(ids) for ids in PROMPTS]
    with Engine.from_pretrained(floored, dtype="float32", mamba_dt_clamp="none", max_num_seqs=4) as engine:
        assert found == [output.logprobs for output in engine.generate(prompts, sampling)]
    with Engine.from_pretrained(floored, dtype="float32", max_num_seqs=4) as engine:
        assert found != [output.logprobs for output in engine.generate(prompts, sampling)]


def test_generated_tokens_are_those_of_the_engine(tiny_checkpoint: Callable[..., Path]) -> None:
    path = str(tiny_checkpoint("causal"))
    settings = EngineSettings(path=path, dtype="float32", asked=Asked(sampling=GREEDY), max_num_seqs=4)
    first, second = answers(settings, work(name="a"), work(name="b"))
    engine = Engine.from_pretrained(path, dtype="float32", max_num_seqs=4)
    expected = [output.token_ids for output in engine.generate([list(ids) for ids in PROMPTS], GREEDY)]
    engine.close()
    for got in (first, second):
        assert [answer.token_ids for answer in got if isinstance(answer, Output)] == expected


def test_a_row_keeps_its_draws_whatever_else_is_asked(tiny_checkpoint: Callable[..., Path]) -> None:
    sampling = replace(GREEDY, temperature=1.0)
    settings = EngineSettings(path=str(tiny_checkpoint("causal")), dtype="float32", asked=Asked(sampling=sampling))
    together, alone = answers(settings, work(name="a", seeds=[1, 2, 3]), work(PROMPTS[1:2], name="b", seeds=[2]))
    assert isinstance(together[1], Output)
    assert isinstance(alone[0], Output)
    assert together[1].token_ids == alone[0].token_ids


@pytest.mark.parametrize("sampling", [None, GREEDY])
def test_a_request_that_cannot_be_served_is_refused_alone(
    tiny_checkpoint: Callable[..., Path], sampling: SamplingParams | None
) -> None:
    head = "sequence-classification" if sampling is None else "causal"
    settings = EngineSettings(
        path=str(tiny_checkpoint(head)), dtype="float32", asked=Asked(sampling=sampling), max_model_len=32
    )
    (got,) = answers(settings, work([[5, 6], [7] * 40, [8]]))
    assert [isinstance(answer, Refused) for answer in got] == [False, True, False]


def test_no_requests_are_answered_without_the_engine(tiny_checkpoint: Callable[..., Path]) -> None:
    assert answers(EngineSettings(path=str(tiny_checkpoint("causal")), asked=Asked(sampling=GREEDY)), work([])) == [[]]


@pytest.mark.parametrize(
    ("head", "asked"),
    [
        ("sequence-classification", Asked()),
        ("token-classification", Asked()),
        ("causal", Asked(labels=((3,), (4, 5)))),
        ("causal", Asked(sampling=GREEDY)),
    ],
    ids=["classes", "tokens", "labels", "text"],
)
def test_answers_are_told_of_while_others_are_computed(
    tiny_checkpoint: Callable[..., Path], head: str, asked: Asked
) -> None:
    """Steps of one prompt or two: they come in parts, and are all told of."""
    told: list[int] = []
    core = EngineCore(EngineSettings(path=str(tiny_checkpoint(head)), asked=asked, max_num_batched_tokens=16))
    prompts = [np.arange(start, start + 12, dtype=np.int32) for start in range(1, 7)]
    try:
        asyncio.run(core.compute(EngineWork.of("parts", prompts, range(6)), told.append))
    finally:
        core.close()
    assert sum(told) == 6
    assert len(told) > 1


def test_a_checkpoint_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        EngineCore(EngineSettings(path=str(tmp_path)))


class _BrokenEngine:
    """An async engine that fails, or refuses."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def generate(self, *args: object, **kwargs: object) -> None:
        raise self._error

    def close(self) -> None: ...


def test_an_engine_that_fails_is_an_error_of_the_call() -> None:
    backend = GeneratingBackend(_BrokenEngine(EngineError("lost")), GREEDY)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="lost"):
        asyncio.run(backend.compute(work()))


def test_a_refusal_of_the_engine_is_an_answer() -> None:
    backend = GeneratingBackend(_BrokenEngine(RequestError("too long")), GREEDY)  # type: ignore[arg-type]
    got = asyncio.run(backend.compute(work()))
    assert [answer.error for answer in got if isinstance(answer, Refused)] == ["too long"] * 3


class _SlowScorer:
    """Notes how many calls are in it at once."""

    num_cached = np.zeros(len(PROMPTS), dtype=np.int64)

    def __init__(self) -> None:
        self.running = self.most = 0

    def score(self, token_ids: list[list[int]]) -> list[torch.Tensor]:
        self.running += 1
        self.most = max(self.most, self.running)
        scores = [torch.tensor([float(len(ids))]) for ids in token_ids]
        self.running -= 1
        return scores


def test_one_call_is_scored_at_a_time() -> None:
    scorer = _SlowScorer()
    backend = ScoringBackend(lambda: scorer)  # type: ignore[arg-type, return-value]

    async def ask() -> list[list[EngineAnswer]]:
        return list(await asyncio.gather(*(backend.compute(work()) for _ in range(8))))

    assert len(asyncio.run(ask())) == 8
    assert scorer.most == 1


SEVERAL = (
    Asked(labels=((20, 2), (21, 22, 2))),
    Asked(labels=((23,), (24, 25), (26,))),
    Asked(sampling=GREEDY),
    Asked(sampling=replace(GREEDY, max_tokens=3, logprobs=1)),
    Asked(embed=EmbedOptions(pooling="mean")),
)


@pytest.mark.parametrize("family", ["qwen3", "zamba2"])
def test_several_tasks_are_answered_as_each_is_alone(tiny_checkpoint: Callable[..., Path], family: str) -> None:
    """Whatever order their requests come in, and with labels that single requests have of their own."""
    settings = EngineSettings(path=str(tiny_checkpoint(family=family)), dtype="float32", max_num_seqs=4)
    tasks = [place % len(SEVERAL) for place in range(3 * len(SEVERAL))]
    prompts = [[3 + place // 5, *range(5, 9 + place % 4)] for place in range(len(tasks))]
    own = {5: ((30,), (31, 32))}
    together = replace(work(prompts), tasks=np.array(tasks, np.int32), own_labels=own)
    (got,) = answers(replace(settings, asked=Asked(several=SEVERAL)), together)
    for number, asked in enumerate(SEVERAL):
        places = [place for place, task in enumerate(tasks) if task == number]
        (expected,) = answers(replace(settings, asked=asked), replace(together.picked(places), tasks=None))
        for mine, theirs in zip((got[place] for place in places), expected, strict=True):
            if isinstance(theirs, Output):
                assert isinstance(mine, Output)
                assert mine.token_ids == theirs.token_ids
                assert (mine.logprobs is None) == (asked.sampling == GREEDY)
            else:
                assert isinstance(mine, OnePassAnswer)
                assert isinstance(theirs, OnePassAnswer)
                np.testing.assert_allclose(mine.values, theirs.values, atol=1e-5)


def test_questions_over_one_document_are_computed_in_one_tree(tiny_checkpoint: Callable[..., Path]) -> None:
    """Five questions cost little more than one, though each is a task of its own."""
    documents = [[3 + (place * (7 + number)) % 40 for place in range(400)] for number in range(6)]
    several = tuple(Asked(labels=((20 + 2 * number,), (21 + 2 * number,))) for number in range(5))
    prompts = [[*document, *range(60, 66), 40 + number] for document in documents for number in range(5)]
    asked = replace(work(prompts), tasks=np.tile(np.arange(5, dtype=np.int32), 6))
    settings = EngineSettings(path=str(tiny_checkpoint(max_position_embeddings=512)), asked=Asked(several=several))
    (got,) = answers(settings, asked)
    cached = [answer.num_cached_tokens for answer in got if isinstance(answer, OnePassAnswer)]
    assert len(cached) == len(prompts)
    computed = sum(map(len, prompts)) - sum(cached)
    assert computed <= 1.35 * 6 * len(prompts[0])


def test_several_tasks_of_a_head_share_its_weights(tiny_checkpoint: Callable[..., Path]) -> None:
    settings = EngineSettings(path=str(tiny_checkpoint("sequence-classification")), dtype="float32")
    both = (Asked(), Asked(embed=EmbedOptions(pooling="last")))
    asked = replace(work([*PROMPTS, *PROMPTS]), tasks=np.array([0, 0, 0, 1, 1, 1], np.int32))
    (got,) = answers(replace(settings, asked=Asked(several=both)), asked)
    for number, one in enumerate(both):
        (expected,) = answers(replace(settings, asked=one), work())
        np.testing.assert_allclose(logits(got[3 * number : 3 * number + 3]), logits(expected), atol=1e-5)
