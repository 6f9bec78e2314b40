"""What sequences begin with in common is computed once: the numbers are those of every sequence
computed whole and alone."""

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from models import Scorer
from models.engine.prefix_tree import GRID, PrefixNode, prefix_tree_of
from models.loading.load import LoadedModel, load_model
from tests.helpers.matrix import first_quick
from tests.helpers.models.tiny_engine import prompts
from tests.helpers.tiny_families import FAMILIES, LONGROPE
from tests.models.conftest import CheckpointMaker

LABELS = [[5], [7, 8], [7, 9, 11], [7, 9], [20, 21, 22, 23]]
EXACT: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
VARIATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "a window": ("mistral", {"sliding_window": 20}),
    "two regimes": ("phi3", {"original_max_position_embeddings": 60, "rope_parameters": LONGROPE}),
    "a regime a length": (
        "qwen3", {"max_position_embeddings": 70, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
    ),
}  # fmt: skip


def loaded_with(family_checkpoint: CheckpointMaker, name: str, head: str = "causal") -> LoadedModel:
    family, fields = VARIATIONS.get(name, (name, {}))
    return load_model(family_checkpoint(family, head, num_labels=5, pad_token_id=0, **fields), max_model_len=128)


def tree_of_prompts(rng: random.Random, num_prompts: int, longest: int = 110) -> list[list[int]]:
    """Prompts that each begin as one before does, or as none."""
    found: list[list[int]] = []
    for _ in range(num_prompts):
        beginning = rng.choice(found) if found and rng.random() < 0.8 else []
        common = beginning[: rng.randint(0, len(beginning))] if rng.random() < 0.9 else beginning
        more = rng.randint(0 if common else 1, max(1, min(50, longest - len(common))))
        found.append([*common, *rng.choices(range(3, 40), k=more)][:longest])
    rng.shuffle(found)
    return found


def families_of_prompts(rng: random.Random, *, longest: int = 110) -> list[list[int]]:
    """Prompts in families with long beginnings, and families in these: much waits in a pack when the next one begins."""
    found: list[list[int]] = []
    for family in range(rng.randint(2, 6)):
        beginning = [3 + family] * rng.choice([16, 32, 64])
        for branch in range(rng.randint(1, 2)):
            inner = beginning + [20 + branch] * rng.choice([0, 16, 24])
            found += [(inner + [30 + leaf] * rng.randint(1, 40))[:longest] for leaf in range(2)]
    return found


def alone(loaded: LoadedModel, sequences: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> torch.Tensor:
    """Log p(label | prompt) from one forward pass a pair, over the prompt and label as one
    sequence without a cache."""
    rows = []
    for ids in sequences:
        whole = [list(ids) + list(label[:-1]) for label in labels]
        found = []
        for scores, label in zip((Scorer(loaded).score([one])[0] for one in whole), labels, strict=True):
            logprobs = torch.log_softmax(scores, dim=-1)
            found.append(float(logprobs[torch.arange(len(ids) - 1, len(ids) - 1 + len(label)), label].sum()))
        rows.append(found)
    return torch.tensor(rows)


@pytest.mark.parametrize("name", [*FAMILIES, *list(VARIATIONS)[:2]])
@pytest.mark.parametrize("budget", first_quick([48, 1024]))
def test_label_scores_behind_shared_beginnings_are_those_of_each_pair_alone(
    family_checkpoint: CheckpointMaker, name: str, budget: int
) -> None:
    loaded, rng = loaded_with(family_checkpoint, name), random.Random(0)
    labels = LABELS if name != "two regimes" else [[7, 8], [7, 9]]  # the longest decides which regime all are in
    scorer = Scorer(loaded, max_num_batched_tokens=budget)
    num_cached = 0
    for _ in range(3):
        sequences = tree_of_prompts(rng, 8)
        torch.testing.assert_close(scorer.score_labels(sequences, labels), alone(loaded, sequences, labels), **EXACT)
        num_cached += int(scorer.num_cached.sum())
        scorer.check_idle()
    assert num_cached > 0


@pytest.mark.parametrize("name", ["qwen3", "zamba2"])
def test_label_scores_behind_a_shared_beginning_are_those_of_transformers(
    family_checkpoint: CheckpointMaker, name: str
) -> None:
    folder = family_checkpoint(name)
    oracle: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sequences = [prompts((80,))[0] + more for more in prompts((3, 17, 20))]
    found = Scorer.from_pretrained(folder).score_labels(sequences, LABELS)
    for prompt, row in zip(sequences, found, strict=True):
        for label, score in zip(LABELS, row.tolist(), strict=True):
            with torch.no_grad():
                logprobs = torch.log_softmax(oracle(torch.tensor([prompt + label])).logits[0], dim=-1)
            expected = sum(logprobs[len(prompt) - 1 + place, token].item() for place, token in enumerate(label))
            assert score == pytest.approx(expected, abs=1e-4)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", first_quick(["qwen3", "zamba2"]))
def test_calls_of_any_kind_in_any_order_find_what_is_found_without_a_cache(
    family_checkpoint: CheckpointMaker, name: str, data: st.DataObject
) -> None:
    """One scorer with a small cache, so that what is kept goes again: each call gives the bytes of
    a fresh scorer, and but for rounding what each of its sequences gives alone."""
    loaded = loaded_with(family_checkpoint, name)
    budget = data.draw(st.sampled_from([16, 40, 200]))
    scorer = Scorer(loaded, max_num_batched_tokens=budget)
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    for _ in range(3):
        sequences = tree_of_prompts(rng, data.draw(st.integers(1, 12)))
        sequences += rng.choices(sequences, k=rng.randint(0, 2))
        if rng.random() < 0.3:
            rng.shuffle(sequences)

        def asked(of: Scorer, ids: Sequence[Sequence[int]], kind: str) -> torch.Tensor:
            return of.score_labels(ids, LABELS) if kind == "labels" else of.pool(ids, kind)  # type: ignore[arg-type]

        kind = data.draw(st.sampled_from(["labels", "last", "mean", "cls"]))
        found = asked(scorer, sequences, kind)
        assert torch.equal(found, asked(Scorer(loaded, max_num_batched_tokens=budget), sequences, kind))
        expected = torch.cat([asked(Scorer(loaded), [ids], kind) for ids in sequences])
        torch.testing.assert_close(found, expected, **EXACT)
        assert (scorer.num_cached <= [len(ids) for ids in sequences]).all()
        scorer.check_idle()


@pytest.mark.parametrize("name", ["qwen3", "zamba2"])
@pytest.mark.parametrize("budget", [40, 72])
def test_what_waits_has_its_room_when_the_next_family_begins(
    family_checkpoint: CheckpointMaker, name: str, budget: int
) -> None:
    loaded, rng = loaded_with(family_checkpoint, name), random.Random(budget)
    scorer, whole = Scorer(loaded, max_num_batched_tokens=budget), Scorer(loaded)
    for _ in range(8):
        sequences = families_of_prompts(rng)
        torch.testing.assert_close(scorer.pool(sequences, "last"), whole.pool(sequences, "last"), **EXACT)
        scorer.check_idle()


@pytest.mark.parametrize("name", ["qwen3", "zamba2", "a window"])
@pytest.mark.parametrize("num_skipped", first_quick([5, 0, 70]))
@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_pooled_states_behind_shared_beginnings_are_those_of_whole_sequences(
    family_checkpoint: CheckpointMaker, name: str, num_skipped: int, pooling: Any
) -> None:
    loaded, scorer = (loaded_with(family_checkpoint, name), Scorer(loaded_with(family_checkpoint, name)))
    states = Scorer(load_model(loaded.folder, head="embedding", max_model_len=128))
    for seed in (0, 0, 1):
        sequences = [prompts((64,))[0] + more for more in prompts((9, 1, 30, 8), seed=seed)]
        sequences = [ids for ids in sequences if len(ids) > num_skipped]
        whole = [each[num_skipped:] for each in states.score(sequences)]
        pool = {"last": lambda state: state[-1], "mean": lambda state: state.mean(dim=0), "cls": lambda state: state[0]}
        expected = torch.stack([pool[pooling](each) for each in whole])
        torch.testing.assert_close(scorer.pool(sequences, pooling, num_skipped), expected, **EXACT)
    if pooling != "cls" or num_skipped == 70:
        assert scorer.num_cached.sum() >= 64 * (len(sequences) - 1)


@pytest.mark.parametrize("name", ["qwen3", "zamba2"])
def test_classes_behind_shared_beginnings_are_those_of_each_sequence_alone(
    family_checkpoint: CheckpointMaker, name: str
) -> None:
    loaded = loaded_with(family_checkpoint, name, "sequence-classification")
    common = prompts((80,))[0]
    sequences = [common + more for more in [*prompts((9, 1, 30)), [0], [0, 0], [7, 0]]]  # 0 is the pad token
    scorer = Scorer(loaded)
    found = scorer.score(sequences)
    for ids, one in zip(sequences, found, strict=True):
        torch.testing.assert_close(one, Scorer(loaded).score([ids])[0], **EXACT)
    assert scorer.num_cached.sum() >= 4 * 64


def test_attention_both_ways_shares_nothing_but_equal_sequences(family_checkpoint: CheckpointMaker) -> None:
    loaded = load_model(family_checkpoint("qwen3", "sequence-classification", is_causal=False, pad_token_id=0))
    common = prompts((64,))[0]
    sequences = [[*common, 5], [*common, 6], [*common, 5]]
    scorer = Scorer(loaded)
    for found in (torch.stack(scorer.score(sequences)), scorer.pool(sequences, "mean")):
        assert torch.equal(found[0], found[2])
        assert (found[0] - found[1]).abs().max() > 1e-4
        assert scorer.num_cached.tolist() == [0, 0, 65]
    assert scorer.memory.cache_bytes == 0


@pytest.mark.parametrize("head", ["causal", "sequence-classification", "token-classification"])
def test_equal_sequences_are_computed_once_and_get_the_same_bytes(
    family_checkpoint: CheckpointMaker, head: str
) -> None:
    loaded = loaded_with(family_checkpoint, "qwen3", head)
    one, other = prompts((30, 40))
    scorer = Scorer(loaded)
    found = scorer.score([one, other, one, one])
    assert scorer.num_cached.tolist() == [0, 0, 30, 30]
    assert torch.equal(found[0], found[2])
    found[2] += 1.0
    assert torch.equal(found[0], found[3])
    vectors = scorer.pool([one, other, one], "mean")
    assert torch.equal(vectors[0], vectors[2])


@pytest.mark.parametrize("name", ["qwen3", "zamba2"])
def test_a_beginning_is_kept_for_later_calls(family_checkpoint: CheckpointMaker, name: str) -> None:
    scorer = Scorer(loaded_with(family_checkpoint, name))
    common = prompts((70,))[0]
    cached = []
    for seed in range(3):
        scorer.score_labels([common + more for more in prompts((9, 8, 7), seed=seed)], LABELS)
        cached.append(scorer.num_cached.tolist())
    assert [sorted(each) for each in cached] == [[0, 64, 64], [64, 64, 64], [64, 64, 64]]
    scorer.score_labels([common], LABELS)  # it has nothing in common with others of its call
    assert scorer.num_cached.tolist() == [0]


def test_what_is_kept_is_bounded_and_counted(family_checkpoint: CheckpointMaker) -> None:
    loaded = loaded_with(family_checkpoint, "zamba2")
    scorer = Scorer(loaded, max_num_batched_tokens=64)
    promised = scorer.memory.cache_bytes
    for seed in range(40):
        common = prompts((64,), seed=seed)[0]
        scorer.pool([common + more for more in prompts((9, 8, 7))], "mean")
        scorer.check_idle()
    taken = sum(tensor.numel() * tensor.element_size() for tensor in scorer._cache.tensors())
    assert 0 < taken <= promised == scorer.memory.cache_bytes


def test_a_call_that_failed_leaves_nothing_held(
    family_checkpoint: CheckpointMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = loaded_with(family_checkpoint, "qwen3")
    scorer = Scorer(loaded)
    sequences = [prompts((64,))[0] + more for more in prompts((9, 8, 7))]
    expected = scorer.score_labels(sequences, LABELS)
    with monkeypatch.context() as patched:
        patched.setattr(type(loaded.model), "logits", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scorer.score_labels(sequences, LABELS)
    torch.testing.assert_close(scorer.score_labels(sequences, LABELS), expected, **EXACT)
    scorer.check_idle()


def paths_of(root: PrefixNode) -> dict[int, list[PrefixNode]]:
    """The beginnings above each sequence, the shortest first."""
    found: dict[int, list[PrefixNode]] = {}
    todo: list[tuple[PrefixNode, list[PrefixNode]]] = [(root, [])]
    while todo:
        node, above = todo.pop()
        above = [*above, node] if node.length else above
        for leaf in node.leaves:
            assert leaf not in found
            found[leaf] = above
        todo.extend((child, above) for child in node.children)
    return found


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(0, 25), depth=st.sampled_from([None, 1, 2]))
def test_a_tree_holds_every_sequence_once_below_what_it_begins_with(seed: int, num: int, depth: int | None) -> None:
    rng = random.Random(seed)
    sequences = [np.array(ids) for ids in tree_of_prompts(rng, num, longest=300)]
    paths = paths_of(prefix_tree_of(sequences, max_depth=depth))
    assert sorted(paths) == list(range(num))
    for index, above in paths.items():
        assert depth is None or len(above) <= depth
        assert all(shorter.length < longer.length for shorter, longer in pairwise(above))
        for node in above:
            assert node.length % GRID == 0
            assert node.length < sequences[index].size
            assert (sequences[node.first][: node.length] == sequences[index][: node.length]).all()


def test_a_common_beginning_and_those_beneath_it_are_found() -> None:
    common, first, second = (np.array(ids) for ids in prompts((512, 400, 400), vocab_size=5000))
    tails = [np.array(ids) for ids in prompts((20,) * 6, vocab_size=5000)]
    documents = [first, first, first, second, second, second]
    asked = [np.concatenate([common, document, tail]) for document, tail in zip(documents, tails, strict=True)]
    lengths = [[node.length for node in above] for _, above in sorted(paths_of(prefix_tree_of(asked)).items())]
    assert lengths == [[512, 912]] * 6


@pytest.mark.slow
def test_shards_share_as_one_rank(family_checkpoint: CheckpointMaker) -> None:
    from tests.helpers.models.warm_shards import WarmShards

    for name in ("qwen3", "zamba2"):
        folder: Path = family_checkpoint(name)
        sequences = [prompts((70,))[0] + more for more in prompts((9, 8, 30, 7))]
        one = Scorer.from_pretrained(folder, device="cpu")
        two = Scorer.from_pretrained(folder, device="cpu", tensor_parallel_size=2, start=WarmShards)
        try:
            for _ in range(2):
                found, expected = (each.score_labels(sequences, LABELS) for each in (two, one))
                torch.testing.assert_close(found, expected, **EXACT)
                found, expected = (each.pool(sequences, "mean") for each in (two, one))
                torch.testing.assert_close(found, expected, **EXACT)
                assert two.num_cached.tolist() == one.num_cached.tolist()
            assert one.num_cached.min() == 64
        finally:
            two.close()


@pytest.mark.parametrize("name", ["qwen3", "zamba2", "two regimes"])
@pytest.mark.parametrize("budget", [40, 1024])
def test_prompts_with_labels_of_their_own_share_what_they_begin_with(
    family_checkpoint: CheckpointMaker, name: str, budget: int
) -> None:
    """Questions over one document, each with its own answers, in one call or one by one."""
    loaded = loaded_with(family_checkpoint, name)
    document = prompts((40,))[0]
    sequences = [document + more for more in [*prompts((9, 30, 7, 9)), prompts((9,))[0]]]
    own = [LABELS, [[5], [6]], [[7, 8, 9]], LABELS[::-1], [[5], [6]]]  # the last prompt is the first, with other labels
    scorer = Scorer(loaded, max_num_batched_tokens=budget)
    found = scorer.score_own_labels(sequences, own)
    for ids, labels, one in zip(sequences, own, found, strict=True):
        torch.testing.assert_close(one, Scorer(loaded).score_labels([ids], labels)[0], **EXACT)
    if name != "two regimes":
        assert sorted(scorer.num_cached.tolist()) == [0, 32, 32, 32, 32]
    scorer.check_idle()


def shuffled_table(rng: random.Random) -> list[list[int]]:
    """Rows of three columns: one of 4 texts of 32 tokens, one of 12 of 32, and 8 of the row's own."""
    firsts, seconds = ([rng.choices(range(3, 40), k=32) for _ in range(count)] for count in (4, 12))
    return [rng.choice(firsts) + rng.choice(seconds) + rng.choices(range(3, 40), k=8) for _ in range(512)]


def test_calls_of_a_shuffled_table_share_most_of_what_those_of_a_sorted_one_do(
    family_checkpoint: CheckpointMaker,
) -> None:
    loaded = loaded_with(family_checkpoint, "qwen3")
    table, cached = shuffled_table(random.Random(0)), []
    for prompts_of_all in (sorted(table), table):
        scorer = Scorer(loaded, tokenizer=None, max_num_batched_tokens=512)
        num_cached = 0
        for first in range(0, len(table), 128):
            scorer.score_labels(prompts_of_all[first : first + 128], [[5], [7]])
            num_cached += int(scorer.num_cached.sum())
        cached.append(num_cached)
    assert cached[1] >= 0.8 * cached[0]
