"""The order of a job's parts, settled when the job is opened: from then on its templates are ordinary ones.

    settled = settle_parts(job, lambda: sources)
    settled.job, settled.parts

A run that goes on has the order that its record has. Another has the best one on some rows of its input. Nothing is rendered for that:
what a part reads is known from its template, and its length is that of the template's own text and of the values it reads.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pipelines.formats.schema import Columns
from pipelines.io.open_output import open_store
from pipelines.job import Job
from pipelines.ledger.run_record import read_record
from pipelines.parts.order import Order, PartSample, best_order, shared_in
from pipelines.parts.template import JOINER, own_chars, with_parts
from pipelines.templates.templates import RowTemplate
from pipelines.units.listing import Sources
from pipelines.units.places import rows_at_places

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedText:
    """How much of the text of all parts of `num_rows` rows others of them begin with too, from 0 to 1: in the order that was found, and
    in the one that was given."""

    num_rows: int
    found: float
    given: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PartsOrder:
    """The parts' numbers in their order; `shared` is None if it is that of an earlier run into the same output."""

    order: Order
    shared: SharedText | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SettledJob:
    """A job whose task has its parts in their places; `parts` is None if it has none."""

    job: Job
    parts: PartsOrder | None


def settle_parts(job: Job, find_sources: Callable[[], Sources]) -> SettledJob:
    """The job with its parts in order, themselves still as they were given. `find_sources` lists the input, if it has to be looked at.

    Raises:
        PlanError: the input cannot be listed or scanned.
        TaskError: a part is no template.
        OutputError, DamageError: what the output holds cannot be read.
    """
    if not job.parts:
        return SettledJob(job=job, parts=None)
    found = _of_run(job) or _found(job, find_sources())
    in_order = partial(with_parts, parts=[job.parts[number] for number in found.order])
    return SettledJob(job=replace(job, task=job.task.with_templates(in_order)), parts=found)


def _of_run(job: Job) -> PartsOrder | None:
    """The order of the run of the same parts that the output holds."""
    record = read_record(open_store(job.output))
    if record is None or record.parts_order is None or record.parts != job.parts:
        return None
    return PartsOrder(order=record.parts_order, shared=None)


def _found(job: Job, sources: Sources) -> PartsOrder:
    templates = [RowTemplate(part, place=f"parts[{number}]") for number, part in enumerate(job.parts)]
    columns = Columns(
        carried=(),
        optional=frozenset().union(*(template.columns for template in templates)),
        reads_all=any(template.reads_all for template in templates),
    )
    rows = rows_at_places(sources.files, job.input, columns, seed=job.seed)
    sample = PartSample.of(
        [_values(template, rows) for template in templates],
        [
            _lengths(own_chars(part) + len(JOINER), template, rows)
            for part, template in zip(job.parts, templates, strict=True)
        ],
    )
    order = best_order(sample)
    given = range(len(job.parts))
    shared = SharedText(num_rows=len(rows), found=shared_in(sample, order), given=shared_in(sample, given))
    logger.info(
        "parts in the order %s: %.0f%% of their text is shared, %.0f%% as given (%d rows)", *_shown(order, shared)
    )
    return PartsOrder(order=order, shared=shared)


def _shown(order: Order, shared: SharedText) -> tuple[str, float, float, int]:
    return ", ".join(map(str, order)), 100 * shared.found, 100 * shared.given, shared.num_rows


def _values(template: RowTemplate, rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """What decides on the text of a part in each row; of one that may read anything, the row."""
    if template.reads_all:
        return [(str(number),) for number in range(len(rows))]
    names = sorted(template.columns)
    return [tuple(repr(row[name]) if name in row else "" for name in names) for row in rows]


def _lengths(own: int, template: RowTemplate, rows: Sequence[Row]) -> list[int]:
    """The characters of a part in each row, about, from those that it has whatever the row."""
    return [
        own + sum(_num_chars(row.get(name)) for name in (row if template.reads_all else template.columns))
        for row in rows
    ]


def _num_chars(value: Any) -> int:
    return 0 if value is None else len(str(value))
