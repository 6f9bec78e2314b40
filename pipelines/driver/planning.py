"""The plan of a run: its units into the ledger, counted on the cluster, how many rows they have, and whether their columns go with the
results."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pipelines.cluster.connect import Room
from pipelines.driver.unit_size import BATCHES
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.progress import Progress, ShowProgress
from pipelines.opened import OpenedJob
from pipelines.rows.unit import Unit
from pipelines.sample import UnitPicker
from pipelines.unit_steps.result_names import check_names
from pipelines.units.numbering import Sink
from pipelines.units.plan_on_ray import map_in_tasks
from pipelines.units.planning import Plan, plan_units, unit_rows_of
from pipelines.units.unit_rows import settled_unit_rows
from pipelines.units.unit_table import UnitWriter

AskTrial = Callable[[], tuple[float, ...] | None]
MeasureSpeed = Callable[[Plan, Sequence[Unit]], float | None]

logger = logging.getLogger(__name__)


def write_plan(
    opened: OpenedJob,
    ledger: Ledger,
    rooms: Sequence[Room],
    speed: MeasureSpeed,
    ask_trial: AskTrial,
    show: ShowProgress,
) -> None:
    """Plans the input of a job that is not planned yet; `show` is told how many rows are found. `speed` tries some of a plan's units on
    an engine, and gives the rows that it computes in a second, None if that cannot be told. What `ask_trial` gives is recorded.

    Raises:
        PlanError: the input cannot be planned.
        TaskError: a column of the input has the name of a result.
        OutputError: the plan cannot be written.
    """
    began = time.monotonic()
    make = partial(_plan, opened, rooms, speed=speed, show=show)
    parts_order = None if opened.parts is None else opened.parts.order
    record = ledger.write_plan(make, date=opened.date, parts_order=parts_order, ask_trial=ask_trial)
    logger.info("planned %d units in %.1f s", record.plan.num_units, time.monotonic() - began)


def _plan(
    opened: OpenedJob, rooms: Sequence[Room], writer: UnitWriter, *, speed: MeasureSpeed, show: ShowProgress
) -> Plan:
    """The plan with units of the most rows, or another with fewer in each, if they would be too much work."""
    job, unit_rows = opened.job, unit_rows_of(opened.job)
    picker = UnitPicker(num_units=len(BATCHES), seed=job.seed)
    plan = _planned(opened, rooms[-1], unit_rows, (writer, picker), show)
    config = opened.models[-1].found.config  # of a cascade the largest
    fitting = settled_unit_rows(
        job, plan, config, replicas=rooms[0].replicas, rows_per_s=lambda: speed(plan, picker.units)
    )
    if fitting == unit_rows:
        return plan
    writer.start_again()
    return _planned(opened, rooms[-1], fitting, (writer,), show)


def _planned(opened: OpenedJob, room: Room, unit_rows: int, sinks: Sequence[Sink], show: ShowProgress) -> Plan:
    job, sources, num_rows = opened.job, opened.sources, 0

    def count(units: Sequence[Unit]) -> None:
        nonlocal num_rows
        for sink in sinks:
            sink(units)
        num_rows += sum(unit.num_rows for unit in units)
        show(Progress(phase="planning", rows_done=num_rows, passed_over=sources.passed_over))

    plan = plan_units(
        sources.files,
        job.input,
        opened.fitted.columns,
        unit_rows=unit_rows,
        limit=job.limit,
        map_tasks=partial(map_in_tasks, num_cpus=room.read_cpus),
        sink=count,
    )
    check_names(job, opened.fitted.facts, plan.schema.names)
    return replace(plan, passed_over=sources.passed_over)
