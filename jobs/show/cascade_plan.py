"""What a cascade would cost, as a page of text behind the plan of its first model: each further model, and all together."""

from collections.abc import Sequence

from jobs.show.progress import duration
from models.checkpoint.byte_text import byte_text
from pipelines.cascade.shares import Reach
from pipelines.estimate import Estimate


def cascade_text(names: Sequence[str], estimates: Sequence[Estimate], found: Sequence[Reach]) -> str:
    """All of it, ready to print: of each model its name, its estimate as if it was given all rows, and what reaches it."""
    steps = list(zip(names, estimates, found, strict=True))
    sections = [_step(number, *step) for number, step in enumerate(steps)]
    return "\n\n".join("\n".join(section) for section in [*sections, _whole(steps)])


def _step(number: int, name: str, estimate: Estimate, reach: Reach) -> list[str]:
    weights, cache = estimate.memory.weights_bytes, estimate.memory.full_cache_bytes
    lines = [
        f"cascade[{number}], {name}",
        f"  rows     {reach.rows:.1%} of all, {reach.tokens:.1%} of the tokens ({reach.num_sampled:,} rows sampled)",
        f"  memory   {byte_text(weights)} of weights, {byte_text(cache)} of cache at most",
    ]
    if estimate.probe is not None and estimate.cost is not None:
        lines.append(f"  speed    {estimate.probe.rows_per_s:,.1f} rows/s, {duration(estimate.probe.load_s)} to load")
        lines.append(f"  tokens   {round(reach.tokens * estimate.cost.prompt_tokens):,} of prompts")
        lines.append(
            f"  time     {duration(reach.tokens * estimate.cost.compute_s)} with one engine like the one probed"
        )
    return lines


def _whole(steps: Sequence[tuple[str, Estimate, Reach]]) -> list[str]:
    costs = [(estimate.cost, reach.tokens) for _, estimate, reach in steps]
    if any(cost is None for cost, _ in costs):
        return ["No sampled row can be computed by every model, so there is no estimate of time."]
    tokens = sum(share * cost.prompt_tokens for cost, share in costs if cost is not None)
    start_s = max(cost.start_s for cost, _ in costs if cost is not None)
    seconds = [share * cost.compute_s for cost, share in costs if cost is not None]
    most, together = duration(start_s + max(seconds)), duration(start_s + sum(seconds))
    return [
        "the whole cascade",
        f"  tokens   {round(tokens):,} of prompts",
        f"  time     {most} where every model has processors of its own, {together} where they share them",
    ]
