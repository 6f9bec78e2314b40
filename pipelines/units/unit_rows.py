"""How many rows the units of a run have, if its spec leaves that to the run: `unit_rows: auto`.

Progress moves by units and a kill loses one, so a unit should be little work; but each unit costs
reading, committing and a receipt, so it should not be too little. How much work a row is depends
on the model.
"""

import logging
from collections.abc import Callable

from models.config.model_config import ModelConfig
from pipelines.job import Job
from pipelines.units.planning import Plan, unit_rows_of

logger = logging.getLogger(__name__)

UNIT_S = 20.0
"""Seconds of one engine that a unit should take, if it can be that large."""

LEAST_UNIT_S = 2.0
"""Seconds of one engine that a unit takes at least, if there are few rows for many engines."""

UNITS_EACH = 8
"""Units that every engine gets at least, so that engines of different speeds finish at about the
same time."""

ANY_FLOPS = 20e9
"""Operations per second that any processor which computes a model has."""

BYTES_PER_TOKEN = 3
PROMPT_TOKENS = 64
"""What a task's own words come to, roughly."""


def settled_unit_rows(
    job: Job, plan: Plan, config: ModelConfig, *, replicas: int, rows_per_s: Callable[[], float | None]
) -> int:
    """The rows per unit for a job whose `plan` gives units as many as they may have. `rows_per_s`
    is called only if it matters; it returns what an engine computes, None if that cannot be
    told."""
    if job.unit_rows is not None or is_little_work(job, plan, config, replicas=replicas):
        return plan.unit_rows
    speed = rows_per_s()
    if speed is None:
        return plan.unit_rows
    fitting = fitting_unit_rows(plan.unit_rows, rows_per_s=speed, num_rows=plan.num_rows, replicas=replicas)
    logger.info("an engine computes %.1f rows per second: a unit has %d", speed, fitting)
    return fitting


def fitting_unit_rows(most: int, *, rows_per_s: float, num_rows: int, replicas: int) -> int:
    """The rows of a unit, 1 to `most`: `UNIT_S` of an engine that computes `rows_per_s`, or less where `num_rows` would then be fewer
    than `UNITS_EACH` units for each of `replicas`, though not under `LEAST_UNIT_S`."""
    shared = num_rows / (UNITS_EACH * replicas)
    rows = min(UNIT_S * rows_per_s, max(shared, LEAST_UNIT_S * rows_per_s))
    return max(1, min(most, round(rows)))


def is_little_work(job: Job, plan: Plan, config: ModelConfig, *, replicas: int) -> bool:
    """Whether no engine has to be asked: units of the most rows are short on any processor and
    there are enough of them, or all of the input is little work. Estimated from the rough number
    of weights and from the lengths that the input's bytes suggest."""
    if job.task.calls_api:
        return True  # what a call asks for, the API finds out
    most = unit_rows_of(job)
    read = plan.num_bytes / plan.num_rows / BYTES_PER_TOKEN + PROMPT_TOKENS
    tasks = job.task.parts().values()
    tokens = sum(read + (task.sampling.max_tokens if task.sampling else 0) for task in tasks)
    row_s = tokens * 2 * _rough_weights(config) / ANY_FLOPS
    units = UNITS_EACH * replicas
    return plan.num_rows * row_s < units * LEAST_UNIT_S or (plan.num_rows >= units * most and most * row_s < UNIT_S)


def _rough_weights(config: ModelConfig) -> int:
    """The weights that one token is multiplied with: 12 matrices per layer, and the vocabulary."""
    hidden = config.hidden_size
    return 12 * hidden * hidden * config.num_hidden_layers + config.vocab_size * hidden
