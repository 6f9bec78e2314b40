"""`millrace serve`: models online, behind an OpenAI-compatible HTTP API."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.boundary import complain
from jobs.commands.options import Address, Overrides


def serve(
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="A service spec, a YAML file; or a checkpoint alone.")
    ] = None,
    overrides: Overrides = None,
    address: Address = None,
    demo: Annotated[bool, typer.Option("--demo", help="Serve the demo's models.")] = False,
) -> int:
    """Serve models behind an OpenAI-compatible HTTP API until Ctrl-C.

    Exit status: 1 the service failed, 2 the spec is wrong or another service has the port, 130 interrupted.
    """
    from jobs.errors import UsageError
    from jobs.serve.environment import set_serve_environment

    set_serve_environment()

    from jobs.serve.service import run_service  # this imports Ray Serve
    from jobs.serve.spec import demo_service, load_service, service_of_checkpoint

    if demo == (service is not None):
        raise UsageError("give a service spec or a checkpoint, or --demo alone")
    if service is None:
        loaded = demo_service(overrides=overrides or ())
    elif Path(service).suffix in (".yaml", ".yml"):
        loaded = load_service(Path(service), overrides=overrides or ())
    else:
        loaded = service_of_checkpoint(service, overrides=overrides or ())
    return run_service(loaded, address=address, say=complain)
