"""How a sequence ends: stop strings, stop ids, end-of-sequence tokens, min_tokens and max_tokens, and what its text is then."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from models import Engine, Output, SamplingParams
from models.engine.scheduling.request import Delta
from models.loading.load import LoadedModel, load_model
from models.text.tokenizer import Tokenizer
from tests.helpers.models.tiny_engine import OVERLAPS, MakeEngine, folder_of, prompts

FREE = SamplingParams(max_tokens=36, temperature=0.0)
PROMPT = prompts((5,), seed=9)[0]


@pytest.fixture
def engine(make_engine: MakeEngine, speaking: LoadedModel, tokenizer: Tokenizer) -> Engine:
    return make_engine(speaking, tokenizer=tokenizer)


@pytest.fixture
def free(engine: Engine) -> Output:
    """What the prompt gives when nothing stops it."""
    [output] = engine.generate([PROMPT], FREE)
    assert len(set(output.token_ids)) > 20
    return output


def ends_of(tokenizer: Tokenizer, token_ids: list[int]) -> list[int]:
    """How long the text is after each token."""
    detokenizer = tokenizer.detokenizer()
    lengths: list[int] = []
    for token in token_ids:
        detokenizer.push([token])
        lengths.append(len(detokenizer.text))
    return lengths


def straddling(tokenizer: Tokenizer, output: Output, *, after: int = 8) -> str:
    """Text that begins within one token and ends within a later one, and occurs there first."""
    ends = ends_of(tokenizer, output.token_ids)
    for first in range(after, len(ends) - 2):
        piece = output.text[ends[first] - 1 : ends[first + 1] + 1]
        if ends[first] < ends[first + 1] < ends[first + 2] and output.text.find(piece) == ends[first] - 1:
            return piece
    raise AssertionError("the text has no such place")


def stream(engine: Engine, params: SamplingParams) -> list[Delta]:
    """Every delta of one request that is streamed."""
    engine.add("streamed", PROMPT, params, is_streamed=True)
    return deltas_of(engine)


def deltas_of(engine: Engine) -> list[Delta]:
    """What comes until nothing is left."""
    deltas: list[Delta] = []
    while engine.has_work:
        deltas += [each.answer for each in engine.step() if isinstance(each.answer, Delta)]
    return deltas


def test_the_text_of_an_output_is_what_the_tokenizer_decodes(
    engine: Engine, free: Output, tokenizer: Tokenizer
) -> None:
    assert free.text == tokenizer.decode(free.token_ids)
    assert free.finish_reason == "length"
    assert len(free.token_ids) == 36


def test_a_text_prompt_is_tokenized_as_the_tokenizer_does(engine: Engine, tokenizer: Tokenizer) -> None:
    [said, given] = engine.generate(["Hello Zürich", tokenizer.encode("Hello Zürich")], FREE)
    assert said.token_ids == given.token_ids
    assert said.num_prompt_tokens == len(tokenizer.encode("Hello Zürich"))


def test_text_is_cut_before_a_stop_string_that_lies_over_token_borders(
    engine: Engine, free: Output, tokenizer: Tokenizer
) -> None:
    stop = straddling(tokenizer, free)
    [output] = engine.generate([PROMPT], replace(FREE, stop=(stop,)))
    assert output.text == free.text[: free.text.index(stop)]
    assert output.finish_reason == "stop"
    needed = next(n for n, end in enumerate(ends_of(tokenizer, free.token_ids), 1) if stop in free.text[:end])
    assert output.token_ids == free.token_ids[:needed]


def test_of_several_stop_strings_the_first_in_the_text_cuts_it(
    engine: Engine, free: Output, tokenizer: Tokenizer
) -> None:
    early, late = straddling(tokenizer, free, after=6), straddling(tokenizer, free, after=16)
    assert free.text.index(early) < free.text.index(late)
    outputs = engine.generate([PROMPT] * 2, [replace(FREE, stop=(late, early)), replace(FREE, stop=("\0", early))])
    assert [output.text for output in outputs] == [free.text[: free.text.index(early)]] * 2


def test_a_stop_string_that_never_comes_changes_nothing(engine: Engine, free: Output) -> None:
    beginnings = tuple(free.text[start : start + 3] + "\0" for start in range(0, len(free.text) - 3, 2))
    [output] = engine.generate([PROMPT], replace(FREE, stop=beginnings))
    assert (output.text, output.token_ids, output.finish_reason) == (free.text, free.token_ids, "length")


def test_a_stop_string_that_the_last_token_completes_is_the_reason_it_ended(
    engine: Engine, free: Output, tokenizer: Tokenizer
) -> None:
    stop = straddling(tokenizer, free)
    needed = next(n for n, end in enumerate(ends_of(tokenizer, free.token_ids), 1) if stop in free.text[:end])
    [output] = engine.generate([PROMPT], replace(FREE, stop=(stop,), max_tokens=needed))
    assert output.text == free.text[: free.text.index(stop)]
    assert output.finish_reason == "stop"


def test_streamed_text_never_shows_a_part_of_a_stop_string(engine: Engine, free: Output, tokenizer: Tokenizer) -> None:
    stop = straddling(tokenizer, free)
    deltas = stream(engine, replace(FREE, stop=(stop,)))
    assert "".join(delta.text for delta in deltas) == free.text[: free.text.index(stop)]
    assert deltas[-1].finish_reason == "stop"


@pytest.mark.parametrize("stop", [(), ("\0",)])
def test_deltas_put_together_are_the_output(engine: Engine, free: Output, stop: tuple[str, ...]) -> None:
    deltas = stream(engine, replace(FREE, stop=stop))
    assert "".join(delta.text for delta in deltas) == free.text
    assert [token for delta in deltas for token in delta.token_ids] == free.token_ids
    assert [delta.finish_reason for delta in deltas] == [None] * 35 + ["length"]


def test_stop_ids_end_a_sequence_and_are_in_its_tokens_but_not_in_its_text(
    engine: Engine, free: Output, tokenizer: Tokenizer
) -> None:
    stop = free.token_ids[10]
    place = free.token_ids.index(stop)
    for params in (replace(FREE, stop_token_ids=(stop,)), replace(FREE, stop_token_ids=(stop,), ignore_eos=True)):
        [output] = engine.generate([PROMPT], params)
        assert output.token_ids == free.token_ids[: place + 1]
        assert output.text == tokenizer.decode(free.token_ids[:place])
        assert output.finish_reason == "stop"


def test_streamed_text_ends_before_a_stop_id(engine: Engine, free: Output, tokenizer: Tokenizer) -> None:
    stop = free.token_ids[10]
    deltas = stream(engine, replace(FREE, stop_token_ids=(stop,)))
    assert "".join(delta.text for delta in deltas) == tokenizer.decode(free.token_ids[: free.token_ids.index(stop)])


def test_a_stop_id_that_is_the_last_allowed_token_is_the_reason_it_ended(engine: Engine, free: Output) -> None:
    stop = free.token_ids[10]
    params = replace(FREE, stop_token_ids=(stop,), max_tokens=free.token_ids.index(stop) + 1)
    assert engine.generate([PROMPT], params)[0].finish_reason == "stop"


@pytest.mark.parametrize("overlap", list(OVERLAPS))
@pytest.mark.parametrize("options", [{}, {"max_num_batched_tokens": 2}])
def test_a_stopped_sequence_leaves_its_batch_mates_alone(
    make_engine: MakeEngine,
    speaking: LoadedModel,
    tokenizer: Tokenizer,
    options: dict[str, int],
    overlap: str,
) -> None:
    with OVERLAPS[overlap]():
        engine = make_engine(speaking, tokenizer=tokenizer, block_size=4, **options)
    free = engine.generate(prompts(), FREE)
    params = [replace(FREE, stop_token_ids=(output.token_ids[3 + index],)) for index, output in enumerate(free)]
    for output, whole, each in zip(engine.generate(prompts(), params), free, params, strict=True):
        assert output.token_ids == whole.token_ids[: whole.token_ids.index(each.stop_token_ids[0]) + 1]


@pytest.fixture
def with_eos(
    tmp_path: Path,
    text_folder: Path,
    tokenizer_folder: Callable[[str], Path],
    make_engine: MakeEngine,
    tokenizer: Tokenizer,
    free: Output,
) -> Engine:
    """The same model, but its generation_config.json names two tokens that it generates, and one it cannot."""
    folder = folder_of(tmp_path, text_folder, eos=[free.token_ids[12], free.token_ids[10], 10**6])
    return make_engine(load_model(folder), tokenizer=tokenizer)


def test_end_of_sequence_tokens_come_from_the_generation_config(with_eos: Engine, free: Output) -> None:
    ends = {free.token_ids[10], free.token_ids[12]}
    place = next(index for index, token in enumerate(free.token_ids) if token in ends)
    [output, ignoring] = with_eos.generate([PROMPT] * 2, [FREE, replace(FREE, ignore_eos=True)])
    assert output.token_ids == free.token_ids[: place + 1]
    assert output.finish_reason == "stop"
    assert ignoring.token_ids == free.token_ids


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_no_end_of_sequence_token_is_generated_before_min_tokens(
    with_eos: Engine, free: Output, temperature: float
) -> None:
    ends = {free.token_ids[10], free.token_ids[12]}
    params = [FREE.changed(min_tokens=25, temperature=temperature, seed=seed) for seed in range(8)]
    for output in with_eos.generate([PROMPT] * 8, params):
        assert not ends & set(output.token_ids[:25])
        assert len(output.token_ids) >= 25


def test_min_tokens_changes_nothing_before_the_first_barred_token(with_eos: Engine, free: Output) -> None:
    [output] = with_eos.generate([PROMPT], FREE.changed(min_tokens=36))
    place = next(index for index, token in enumerate(free.token_ids) if token != output.token_ids[index])
    assert place == min(map(free.token_ids.index, (free.token_ids[10], free.token_ids[12])))
    assert output.finish_reason == "length"


def test_stop_strings_before_min_tokens_are_text(engine: Engine, free: Output, tokenizer: Tokenizer) -> None:
    stop = straddling(tokenizer, free)
    needed = next(n for n, end in enumerate(ends_of(tokenizer, free.token_ids), 1) if stop in free.text[:end])
    outputs = engine.generate(
        [PROMPT] * 2, [FREE.changed(stop=(stop,), min_tokens=count) for count in (needed, needed + 1)]
    )
    assert outputs[0].text == free.text[: free.text.index(stop)]
    assert outputs[1].text.startswith(free.text[: free.text.index(stop) + len(stop)])


def test_an_aborted_request_keeps_the_text_that_was_certain(engine: Engine, free: Output) -> None:
    params = replace(FREE, stop=("\0",))
    engine.add("whole", PROMPT, params)
    engine.add("streamed", PROMPT, params, is_streamed=True)
    brought = [each for _ in range(12) for each in engine.step()]
    for name in ("whole", "streamed"):
        engine.abort(name)
    brought += engine.step()
    [output] = [each.answer for each in brought if isinstance(each.answer, Output)]
    deltas = [each.answer for each in brought if isinstance(each.answer, Delta)]
    assert (output.finish_reason, deltas[-1].finish_reason, deltas[-1].token_ids) == ("abort", "abort", [])
    assert output.text == "".join(delta.text for delta in deltas)
    assert output.token_ids == [token for delta in deltas for token in delta.token_ids] == free.token_ids[:11]
    assert free.text.startswith(output.text)
    assert not engine.has_work
