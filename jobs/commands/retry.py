"""`millrace retry`: the dead letters of an output, tried again."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.boundary import INTERRUPTED, complain
from jobs.commands.after_run import report_after
from jobs.commands.options import Address, OutputFolder, SpecOfStorage, StorageOptions
from jobs.errors import UsageError
from pipelines.cluster.interrupts import interrupts
from pipelines.cluster.last_resort import LastResort

if TYPE_CHECKING:
    from jobs.spec.output_place import OutputPlace
    from jobs.spec.recorded import RecordedSpecs
    from pipelines.retry.asked import RetryAsked

Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="KIND", help="Only letters of this kind, such as too_long; may be given several times."
    ),
]
Letters = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N of them, in the order of the input.")
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="EXPRESSION",
        help="""Only letters of which this is true, such as 'kind == "too_long" and attempts < 3'; it names what a letter has.""",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.KEY=VALUE",
        help="Retry with another value of one key of the spec: of engine, a higher task.sampling.max_tokens, task.windows, "
        "a default in a template, or storage options; may be given several times.",
    ),
]
AllowChanged = Annotated[
    bool,
    typer.Option(
        "--allow-changed",
        help="Let --set change the model and the task too. Receipts say which rows were computed with what.",
    ),
]


def retry(
    out: OutputFolder,
    kinds: Kinds = None,
    limit: Letters = None,
    where: Where = None,
    overrides: Overrides = None,
    allow_changed: AllowChanged = False,
    spec: SpecOfStorage = None,
    storage_options: StorageOptions = None,
    address: Address = None,
) -> int:
    """Try the dead letters of a run again, and put those that have results now among the others.

    Exit status: 0 done (rows may have failed again), 1 the retry failed, 2 an argument is wrong,
    130 interrupted.
    """
    with interrupts(LastResort(complain)):
        from jobs.spec.output_place import output_place
        from pipelines.retry.asked import RetryAsked
        from pipelines.retry.condition import Condition
        from pipelines.retry.selection import Selection

        condition = None if where is None else Condition(where)
        selection = Selection(kinds=frozenset(kinds or ()), condition=condition)
        place = output_place(out, spec, storage_options or ())
        specs = _specs_of(place, overrides or (), allows_changes=allow_changed)
        asked = RetryAsked(planned=specs.planned.job, selection=selection, limit=limit, allows_changes=allow_changed)
        return _retry(specs, asked, address or specs.changed.cluster or os.environ.get("RAY_ADDRESS"))


def _specs_of(place: "OutputPlace", overrides: Sequence[str], *, allows_changes: bool) -> "RecordedSpecs":
    """The job of the run that is there, and what is set of it.

    Raises:
        UsageError: there is no run.
    """
    from jobs.spec.recorded import recorded_specs
    from pipelines.io.open_output import open_store
    from pipelines.ledger.run_record import read_record

    store = open_store(place.output)
    record = read_record(store)
    if record is None:
        raise UsageError(f"{store.location} has no run that was planned to its end, so there is nothing to retry")
    return recorded_specs(record, place.output, place.given, overrides=overrides, allows_changes=allows_changes)


def _retry(specs: "RecordedSpecs", asked: "RetryAsked", address: str | None) -> int:
    from jobs.serve.record import join_service
    from jobs.show.progress import progress_display
    from jobs.spec.placed_errors import placed_errors
    from jobs.spec.preflight import SpecCheck

    loaded = specs.changed
    job = loaded.job
    if address is None and job.engine.service is not None:
        address = join_service(job.engine.service)
    with closing(SpecCheck(loaded, today=specs.date)) as check:
        # imports Ray, which reads its settings then; the tokenizer is read meanwhile
        from pipelines.retry.driver import retry

        with placed_errors(loaded), progress_display(sys.stderr) as show:
            summary = retry(job, asked, address=address, on_progress=show, last_words=complain, opening=check)
    complain(summary.message)
    if summary.exit_status != INTERRUPTED:
        report_after(job)
    return summary.exit_status
