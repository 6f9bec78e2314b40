"""The plan of a run: its units into the ledger, counted on the cluster, and whether their columns go with the results."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pipelines.cluster.connect import Room
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.progress import Progress
from pipelines.opened import OpenedJob
from pipelines.rows.unit import Unit
from pipelines.unit_steps.result_names import check_names
from pipelines.units.plan_on_ray import map_in_tasks
from pipelines.units.planning import Plan, Sink, plan_units, unit_rows_of

logger = logging.getLogger(__name__)


def write_plan(opened: OpenedJob, ledger: Ledger, room: Room, show: Callable[[Progress], None]) -> None:
    """Plans the input of a job that is not planned yet; `show` is told how many rows are found.

    Raises:
        PlanError: the input cannot be planned.
        TaskError: a column of the input has the name of a result.
        OutputError: the plan cannot be written.
    """
    began = time.monotonic()
    record = ledger.write_plan(lambda sink: _plan(opened, room, sink, show), date=opened.date)
    logger.info("planned %d units in %.1f s", record.plan.num_units, time.monotonic() - began)


def _plan(opened: OpenedJob, room: Room, sink: Sink, show: Callable[[Progress], None]) -> Plan:
    job, sources, num_rows = opened.job, opened.sources, 0

    def count(units: Sequence[Unit]) -> None:
        nonlocal num_rows
        sink(units)
        num_rows += sum(unit.num_rows for unit in units)
        show(Progress(phase="planning", rows_done=num_rows, passed_over=sources.passed_over))

    plan = plan_units(
        sources.files,
        job.input,
        opened.fitted.columns,
        unit_rows=unit_rows_of(job),
        limit=job.limit,
        map_tasks=partial(map_in_tasks, num_cpus=room.read_cpus),
        sink=count,
    )
    check_names(job, opened.fitted.facts, plan.schema.names)
    return replace(plan, passed_over=sources.passed_over)
