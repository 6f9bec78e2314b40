"""What rules over the next token cost: nothing where none is asked for, and how much where one is.

    python tests/benchmarks/rules.py

A tiny model in float32 writes 32 tokens for each of 64 requests, so that a step is hardly more
than what the host does for it. Runs without rules take turns with runs in which the engine has no
code for rules at all, and with runs of each rule; the ratio of two is the median over rounds of
neighbouring runs.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import torch

from models import Engine, SamplingParams
from models.engine import runner
from models.engine.sampling.sampler import SamplingRow, drawn
from models.engine.scheduling.plan import Admission
from tests.helpers.models.tiny_engine import SHARP, prompts
from tests.helpers.tiny_checkpoints import save_with_tokenizer

NUM_REQUESTS, NUM_TOKENS, NUM_ROUNDS = 64, 32, 31
GREEDY = SamplingParams(max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)
DRAWN = SamplingParams(max_tokens=NUM_TOKENS, temperature=0.9, seed=1, ignore_eos=True)
RULES: Final[Mapping[str, dict[str, Any]]] = {
    "logit_bias": {"logit_bias": {5: 1.0, 9: -1.0}},
    "repetition_penalty": {"repetition_penalty": 1.1},
    "presence_penalty": {"presence_penalty": 0.5},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 4},
    "bad_words": {"bad_words": ("it is", "so")},
    "min_tokens": {"min_tokens": NUM_TOKENS, "stop_token_ids": (5,)},
    "allowed_token_ids": {"allowed_token_ids": tuple(range(5, 90))},
}
ALL: Final = {name: value for rule in RULES.values() for name, value in rule.items()}

Run = Callable[[], None]


def _row_without_rules(admission: Admission, device: torch.device) -> SamplingRow:
    del device
    return SamplingRow(
        params=admission.params, seed=admission.seed, stop_ids=admission.stop_ids, num_prompt=admission.num_prompt
    )


@contextmanager
def no_rules_at_all() -> Iterator[None]:
    """The engine as it would be without rules: nobody makes any, or asks whether a row has one."""
    with (
        patch.object(SamplingRow, "of", _row_without_rules),
        patch.object(runner, "sample", drawn),
        patch.object(runner, "is_plain_greedy", lambda params: params.temperature == 0.0 and params.logprobs is None),
    ):
        yield


def ratio(one: Run, other: Run) -> float:
    """How much longer `one` takes than `other`: the median over rounds, whose order alternates."""
    ratios = []
    for number in range(NUM_ROUNDS):
        if number % 2:
            seconds = seconds_of(other)
            ratios.append(seconds_of(one) / seconds)
        else:
            seconds = seconds_of(one)
            ratios.append(seconds / seconds_of(other))
    return statistics.median(ratios)


def seconds_of(run: Run) -> float:
    """Seconds of one run that this process computed, whoever else uses the machine."""
    started = time.process_time()
    run()
    return time.process_time() - started


def say(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Prints one ratio a line."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        save_with_tokenizer(Path(folder), "qwen3", "causal", SHARP)
        engine = Engine.from_pretrained(folder, device="cpu", max_num_seqs=NUM_REQUESTS)
        given = prompts((8,) * NUM_REQUESTS)

        def runs(params: SamplingParams) -> Run:
            def run() -> None:
                engine.generate(given, params)

            return run

        def bare(params: SamplingParams) -> Run:
            def run() -> None:
                with no_rules_at_all():
                    engine.generate(given, params)

            return run

        runs(GREEDY)()
        step = seconds_of(runs(GREEDY)) / NUM_TOKENS
        say(f"a step of {NUM_REQUESTS} greedy rows takes {1000 * step:.2f} ms")
        say(f"greedy rows without rules, to themselves: {ratio(runs(GREEDY), runs(GREEDY)):.3f}")
        for name, params in (("greedy", GREEDY), ("drawn", DRAWN)):
            say(
                f"{name} rows without rules, to an engine without code for rules: {ratio(runs(params), bare(params)):.3f}"
            )
        for name, asked in {**RULES, "all of them": ALL}.items():
            say(f"greedy rows with {name}, to those without: {ratio(runs(GREEDY.changed(**asked)), runs(GREEDY)):.2f}")


if __name__ == "__main__":
    main()
