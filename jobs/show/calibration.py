"""A calibration as a page of text: what each model keeps, how right that is, and what to write into the spec."""

from collections.abc import Iterator

from pipelines.cascade.bounds import Search, Tried
from pipelines.cascade.calibrate import Calibration, StepFound, Wanted


def calibration_text(found: Calibration, truth: str) -> str:
    """All of it, ready to print; `truth` is the column that it was made with."""
    sections = [
        list(_rows(found, truth)),
        *([*_step(number, step, found.wanted)] for number, step in enumerate(found.steps)),
    ]
    sections.append(list(_whole(found)) if found.is_complete else list(_help(found)))
    return "\n\n".join("\n".join(section) for section in sections)


def _rows(found: Calibration, truth: str) -> Iterator[str]:
    known = len(found.truths.items)
    yield f"{found.rows.num_rows:,} rows drawn, {known:,} with a truth in {truth}"
    if found.rows.num_unreadable:
        yield f"  {found.rows.num_unreadable:,} more could not be read"
    if found.truths.num_unusable:
        yield f"  {found.truths.num_unusable:,} have something else there: {found.truths.unusable}"


def _step(number: int, step: StepFound, wanted: Wanted) -> Iterator[str]:
    place = f"cascade[{number}], {step.name}"
    if step.search is None:
        yield f"{place}: answers what is left"
    elif step.search.passed is None:
        yield f"{place}: no bound is proven to keep answers of which {_percent(wanted.accuracy)} are right"
    else:
        yield f"{place}: score {_score(step.search.passed.bound)} and above"
    yield f"  rows      {step.num_asked:,} asked, {step.num_answered:,} answered, {step.prompt_tokens:,} prompt tokens"
    if step.num_kept:
        share = step.num_kept / step.num_asked
        right = _percent(step.num_right / step.num_kept)
        yield f"  kept      {step.num_kept:,} ({_percent(share)}), {right} of them right"
    if step.search is not None:
        yield from _proof(step.search, wanted)


def _proof(search: Search, wanted: Wanted) -> Iterator[str]:
    if search.passed is not None:
        yield f"  proven    {_tried(search.passed)}, on {search.num_rows:,} rows that had no say in what was tried"
    if search.failed is not None:
        yield f"  not any more from {_score(search.failed.bound)} on: {_tried(search.failed)}"
    yield f"  with all bounds of the cascade together {_percent(wanted.confidence)} sure"


def _tried(tested: Tried) -> str:
    counts = f"{tested.num_right:,} of {tested.num_kept:,} right"
    return f"{counts}, {_percent(tested.accuracy)}; at least {_percent(tested.least)}"


def _whole(found: Calibration) -> Iterator[str]:
    yield f"the whole cascade: {_percent(found.accuracy)} right, an estimate from the same rows"
    yield "write into the spec:"
    for number, step in enumerate(found.steps[:-1]):
        assert step.bound is not None, "it is complete"
        yield f"  cascade[{number}].until.score: {_score(step.bound)}"


def _help(found: Calibration) -> Iterator[str]:
    wanted, search = found.wanted, found.steps[-1].search
    yield f"no bound was found that keeps answers of which {_percent(wanted.accuracy)} are right; what would help:"
    yield "  more rows with a truth (--rows); a lower --accuracy or --confidence; a better model in this place"
    if search is not None and search.failed is None:
        yield f"  {search.num_rows:,} rows are too few to try anything"


def _score(bound: float) -> str:
    """A bound as a spec holds it: YAML reads 1e-05 as text."""
    return f"{bound:.6f}".rstrip("0").rstrip(".")


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
