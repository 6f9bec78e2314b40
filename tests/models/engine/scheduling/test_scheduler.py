"""The scheduler with a model that always answers 7: who runs, in which blocks, and what is dropped."""

import pytest

from models.engine.scheduling.block_pool import BlockPool
from models.engine.scheduling.plan import LAST_TOKEN, StepPlan
from models.engine.scheduling.request import Request, SamplingParams
from models.engine.scheduling.scheduler import Scheduler, StepResult
from models.engine.scheduling.sequence import Sequence
from models.errors import RequestError

ANSWER = 7


def make(*, blocks: int = 64, size: int = 4, seqs: int = 8, budget: int = 64, length: int = 128) -> Scheduler:
    pool = BlockPool(blocks, size)
    return Scheduler(pool, max_num_seqs=seqs, max_num_batched_tokens=budget, max_model_len=length)


def request(name: str, tokens: list[int], *, stop: tuple[int, ...] = (), **params: int) -> Request:
    settings = SamplingParams(temperature=0.0, **{"max_tokens": 3, **params})  # type: ignore[arg-type]
    return Request(request_id=name, token_ids=tuple(tokens), params=settings, seed=0, stop_ids=frozenset(stop))


def answer(plan: StepPlan) -> StepResult:
    return StepResult(tokens=[[ANSWER] for is_sampling in plan.is_sampling if is_sampling])


def plan_of(scheduler: Scheduler) -> StepPlan:
    plan = scheduler.schedule()
    assert plan is not None
    return plan


def run(scheduler: Scheduler, *, ahead: int = 1) -> list[StepPlan]:
    """Steps until nothing is left, `ahead` plans in flight; the pool is checked after each."""
    plans: list[StepPlan] = []
    flying: list[StepPlan] = []
    while scheduler.has_work:
        plan = scheduler.schedule()
        if plan is not None:
            plans.append(plan)
            flying.append(plan)
        if flying and (plan is None or len(flying) >= ahead):
            scheduler.commit(answer(flying.pop(0)))
        scheduler.check_integrity()
    return plans


def test_a_prompt_is_prefilled_and_then_decodes_one_token_a_step() -> None:
    scheduler = make()
    sequence = scheduler.add(request("a", [1, 2, 3, 4, 5]))
    plans = run(scheduler)
    assert [plan.counts for plan in plans] == [[5], [1], [1]]
    assert [plan.starts for plan in plans] == [[0], [5], [6]]
    assert sequence.output_ids == [ANSWER] * 3
    assert sequence.finish_reason == "length"


def test_a_step_planned_ahead_names_the_token_that_is_still_being_sampled() -> None:
    scheduler = make()
    scheduler.add(request("a", [1, 2, 3]))
    scheduler.schedule()
    assert plan_of(scheduler).token_ids == [LAST_TOKEN]


def test_a_sequence_that_turns_out_to_have_stopped_drops_its_extra_step() -> None:
    scheduler = make()
    sequence = scheduler.add(request("a", [1, 2, 3], stop=(ANSWER,)))
    plans = run(scheduler, ahead=2)
    assert len(plans) == 2
    assert sequence.output_ids == [ANSWER]
    assert sequence.finish_reason == "stop"


def test_no_step_is_planned_past_max_tokens() -> None:
    scheduler = make()
    scheduler.add(request("a", [1, 2, 3], max_tokens=2))
    assert len(run(scheduler, ahead=2)) == 2


def test_stop_ids_before_min_tokens_do_not_end_a_sequence() -> None:
    scheduler = make()
    sequence = scheduler.add(request("a", [1], stop=(ANSWER,), min_tokens=2))
    run(scheduler)
    assert sequence.output_ids == [ANSWER] * 2


def test_a_long_prompt_is_prefilled_in_chunks_beside_decoding_sequences() -> None:
    scheduler = make(budget=8)
    scheduler.add(request("a", [1, 2, 3, 4], max_tokens=6))
    scheduler.commit(answer(plan_of(scheduler)))
    scheduler.add(request("b", list(range(20)), max_tokens=1))
    counts = [plan.counts for plan in run(scheduler)]
    assert counts[:3] == [[1, 7], [1, 7], [1, 6]]


def test_only_the_last_chunk_samples() -> None:
    scheduler = make(budget=8)
    scheduler.add(request("a", list(range(20)), max_tokens=1))
    assert [plan.is_sampling for plan in run(scheduler)] == [[False], [False], [True]]


def test_decodes_stand_before_prefills() -> None:
    scheduler = make()
    scheduler.add(request("a", [1, 2, 3]))
    scheduler.commit(answer(plan_of(scheduler)))
    scheduler.add(request("b", [1]))
    scheduler.add(request("c", [1, 2]))
    plan = plan_of(scheduler)
    assert list(zip(plan.starts, plan.counts, strict=True)) == [(3, 1), (0, 1), (0, 2)]


def test_no_more_sequences_run_than_allowed() -> None:
    scheduler = make(seqs=2)
    for name in "abcde":
        scheduler.add(request(name, [ord(name)]))
    plans = run(scheduler)
    assert max(len(plan.slots) for plan in plans) == 2


def test_the_newest_sequence_is_preempted_when_blocks_run_out_and_all_finish() -> None:
    scheduler = make(blocks=6, size=2)
    old = scheduler.add(request("old", [1, 2, 3], max_tokens=8))
    new = scheduler.add(request("new", [4, 5, 6], max_tokens=8))
    for ahead in (1, 2):
        run(scheduler, ahead=ahead)
    assert scheduler.lanes["batch"].num_preemptions > 0
    assert old.output_ids == new.output_ids == [ANSWER] * 8


def test_a_preempted_sequence_is_computed_again_from_all_its_tokens() -> None:
    scheduler = make(blocks=6, size=2)
    scheduler.add(request("old", [1, 2, 3], max_tokens=8))
    scheduler.add(request("new", [4, 5, 6], max_tokens=8))
    again = [plan for plan in run(scheduler) if plan.admitted][-1]
    assert again.counts[-1] > 1
    assert again.token_ids[-1] == ANSWER


def test_a_shared_prefix_is_not_computed_twice_not_even_within_one_step() -> None:
    scheduler = make(size=2)
    scheduler.add(request("a", [1, 2, 3, 4, 5]))
    second = scheduler.add(request("b", [1, 2, 3, 4, 6]))
    plan = plan_of(scheduler)
    assert plan.counts == [1, 5] or plan.counts == [5, 1]
    assert second.num_cached == 4


def test_prompt_logprobs_are_asked_chunk_by_chunk_and_never_from_the_cache() -> None:
    scheduler = make(size=2, budget=4)
    scheduler.add(request("a", [1, 2, 3, 4, 5, 6], max_tokens=1))
    run(scheduler)
    scheduler.add(request("b", [1, 2, 3, 4, 5, 6], max_tokens=1, prompt_logprobs=0))
    first = plan_of(scheduler)
    assert first.targets == {0: [2, 3, 4, 5]}
    scheduler.commit(answer(first))
    assert plan_of(scheduler).targets == {0: [6]}


def finish_early(scheduler: Scheduler, sequence: Sequence) -> None:
    scheduler.finish(sequence, "abort")
    scheduler.check_integrity()


def test_an_aborted_sequence_gives_its_blocks_back_at_once_wherever_it_is() -> None:
    scheduler = make(seqs=1)
    running = scheduler.add(request("a", [1, 2, 3]))
    waiting = scheduler.add(request("b", [4]))
    plan = plan_of(scheduler)
    finish_early(scheduler, waiting)
    finish_early(scheduler, running)
    assert scheduler.pool.num_held == 0
    assert scheduler.commit(answer(plan)) == []
    assert not scheduler.has_work


@pytest.mark.parametrize(
    ("tokens", "max_tokens", "message"),
    [
        ([], 3, "no tokens"),
        (list(range(126)), 3, "together 129; the limit is 128"),
        (list(range(30)), 20, "cache holds 40"),
    ],
)
def test_a_request_that_can_never_run_is_refused_with_the_numbers(
    tokens: list[int], max_tokens: int, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        make(blocks=10).add(request("a", tokens, max_tokens=max_tokens))
