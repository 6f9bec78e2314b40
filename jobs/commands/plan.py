"""`millrace plan`: what a job would cost, before it is started."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jobs.boundary import complain
from jobs.commands.options import Address, Limit, Overrides, SpecFile, today
from pipelines.cluster.interrupts import interrupts
from pipelines.cluster.last_resort import LastResort

if TYPE_CHECKING:
    from jobs.spec.preflight import Preflight
    from pipelines.estimate import Estimate

LEAST_ROWS: Final = 64
MOST_ROWS: Final = 1000
"""Rows that tell which share of a cascade's rows goes on; between the two as many as a model answers in the time of a probe."""


def plan(spec: SpecFile, limit: Limit = None, overrides: Overrides = None, address: Address = None) -> int:
    """Say what a job would cost: rows, tokens, memory and time, from a sample of its input. Writes nothing.

    The input is counted in this process, or with --address in tasks on that cluster; the model is loaded and probed in this process.
    """
    with interrupts(LastResort(complain)):
        return _plan(spec, limit, overrides or (), address)


def _plan(spec: Path, limit: int | None, overrides: Sequence[str], address: str | None) -> int:
    import typer

    from jobs.show.plan import plan_text
    from jobs.spec.job import load_spec
    from jobs.spec.placed_errors import placed_errors
    from jobs.spec.preflight import check_before_run
    from models.weights.weights import Checkpoint
    from pipelines.estimate import OpenedStep, estimate_job
    from pipelines.units.planning_place import planning_place

    loaded = load_spec(spec, overrides=overrides, limit=limit)
    found = check_before_run(loaded, today=today())
    with closing(found), placed_errors(loaded), planning_place(loaded.job.engines, address) as place:
        opened = found.opened
        steps = [
            OpenedStep(
                config=model.found.config,
                checkpoint=Checkpoint.open(step.model.find("whole").folder),
                preparer=preparer,
                room=room,
            )
            for step, model, preparer, room in zip(
                opened.job.steps, opened.models, found.preparers, place.rooms, strict=True
            )
        ]
        estimates = estimate_job(opened.job, steps, opened.sources, map_tasks=place.map_tasks)
        job = loaded.job
        text = plan_text(
            job.steps[0],
            estimates[0],
            classes=found.meaning_of_scores,
            caution=found.caution_of_bits,
            parts=found.opened.parts,
            whole=f"all rows on {job.step_names[0]}" if job.cascade else "the whole job",
        )
        if job.cascade:
            text = f"{text}\n\n{_of_cascade(found, estimates)}"
    typer.echo(text)
    return 0


def _of_cascade(found: "Preflight", estimates: "Sequence[Estimate]") -> str:
    """What each model of a cascade will do; rows enough to tell go through all but the last."""
    from jobs.show.cascade_plan import cascade_text
    from pipelines.cascade.shares import reaches
    from pipelines.estimate import PROBE_S

    opened = found.opened
    speeds = [estimate.probe.rows_per_s for estimate in estimates[:-1] if estimate.probe is not None]
    num_rows = round(min(MOST_ROWS, max(LEAST_ROWS, PROBE_S * min(speeds, default=0.0))))
    found_reaches = reaches(opened.dated_job, found.preparers, opened.sources, num_rows=num_rows)
    return cascade_text(opened.job.step_names, estimates, found_reaches)
