"""`millrace plan`: what a job would cost, before it is started."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from jobs.boundary import complain
from jobs.commands.options import Address, Limit, Overrides, SpecFile, today
from pipelines.cluster.interrupts import interrupts
from pipelines.cluster.last_resort import LastResort


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
    from pipelines.estimate import Inputs, estimate_job
    from pipelines.units.planning_place import planning_place

    loaded = load_spec(spec, overrides=overrides, limit=limit)
    found = check_before_run(loaded, today=today())
    checkpoint = Checkpoint.open(loaded.job.model.find("whole").folder)
    inputs = Inputs(
        config=found.config,
        checkpoint=checkpoint,
        preparer=found.preparer,
        sources=found.opened.sources,
    )
    with closing(found), placed_errors(loaded), planning_place(loaded.job.engines, address) as place:
        estimate = estimate_job(loaded.job, inputs, map_tasks=place.map_tasks, room=place.rooms[0])
    typer.echo(plan_text(loaded.job, estimate, classes=found.meaning_of_scores, caution=found.caution_of_bits))
    return 0
