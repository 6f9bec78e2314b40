"""A service from its spec to its end: Ray Serve started, the models up, watched over until it is
ended."""

import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import ray
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.schema import ApplicationStatus, LoggingConfig

from actors.http.security import ApiKeys, check_listen
from actors.http.texts.text_pool import check_tokenizer
from actors.serve.service import DRAIN_S
from jobs.errors import FailedError, SpecError, UsageError
from jobs.serve.app import application
from jobs.serve.record import ServiceRecord
from jobs.serve.spec import LoadedService, ServiceSpec
from jobs.spec.document.key_paths import KeyPath
from jobs.spec.model_check import check_model, problems_at
from pipelines.cluster.connect import LOCAL_SPARE_CPUS, engine_cpus, joined, num_cores, will_start_one
from pipelines.cluster.interrupts import Grace, interrupts
from pipelines.cluster.last_resort import LastResort
from pipelines.cluster.leftovers import end_leftovers
from pipelines.cluster.ray_output import quiet_ray
from pipelines.cluster.ray_private import default_temporary_folder, serve_http_options
from pipelines.cluster.token import AUTH_MODE, TOKEN

WATCH_S = 5.0
END_S = 6.0
"""After draining, what a service may take to end in order. Then its processes are killed."""

GRACE = Grace(
    first_s=DRAIN_S + END_S, second_s=0.0, message="the service was ended before all of it was drained and gone"
)
LOST = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.NOT_STARTED, ApplicationStatus.DELETING)
LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)


def run_service(service: LoadedService, *, address: str | None, say: Callable[[str], None]) -> int:
    """Serves until it is interrupted, and then drains: requests that run come to their ends, no new ones are taken.

    Raises:
        UsageError: another service of the cluster has the HTTP proxy, or it cannot listen.
        SpecError: a model cannot be loaded as the spec says, the file of keys cannot be used, it cannot listen on this machine, or would
            listen on a network without keys.
        FailedError: the models do not come up, or are lost.
    """
    spec = service.spec
    with problems_at(service.places, ("http", "host")):
        check_listen(spec.host, has_keys=spec.keys_file is not None)
    if spec.keys_file is not None:
        with problems_at(service.places, ("api_keys", "file")):
            ApiKeys(spec.keys_file)  # what is wrong with it is told before the service starts
    _check_models(service)
    if will_start_one(address):
        _check_free(service)  # a cluster takes ten seconds to start
    last_resort = LastResort(say)
    with (
        interrupts(last_resort, GRACE) as take_signals,
        _ending_processes(last_resort, address),
        quiet_ray() as chatter,
        joined(address, num_cpus=_cpus_of(spec)),
    ):
        take_signals()
        chatter.move_to_session()
        try:
            with _served(spec, last_resort) as record:
                say(f"serving {', '.join(model.name for model in spec.models)} at {record.url}/v1; Ctrl-C ends it")
                _watch(spec.name)
        except KeyboardInterrupt:
            say("the service has ended")
            return 130
    return 1


@contextmanager
def _ending_processes(last_resort: LastResort, address: str | None) -> Iterator[None]:
    """Has the last resort kill what a cluster of our own has left. On a given cluster Serve's controller does that, which was asked to
    when the draining began."""
    with ExitStack() as stack:
        stack.callback(last_resort.call_off)
        if will_start_one(address):
            stack.enter_context(last_resort.giving_back(partial(end_leftovers, default_temporary_folder())))
        yield


def _engine_key(index: int, option: str) -> KeyPath:
    """Where an option of a model's engines stands."""
    return ("models", index, "engine", option)


def _check_models(service: LoadedService) -> None:
    """Opens every model, before anything starts."""
    for index, model in enumerate(service.spec.models):
        at = ("models", index)
        engine_at = partial(_engine_key, index)
        _, found = check_model(model.model, model.engine, service.places, model_at=at, engine_at=engine_at)
        with problems_at(service.places, (*at, "path")):
            check_tokenizer(found.folder)


@contextmanager
def _served(spec: ServiceSpec, last_resort: LastResort) -> Iterator[ServiceRecord]:
    """The service up and recorded; afterwards it is gone, and Serve too unless it was there before. A replica that is stuck can keep
    that from happening: from the beginning of the end on, the last resort is set."""
    app = application(spec)
    was_running = _start_proxy(spec)
    record = ServiceRecord(
        name=spec.name,
        cluster=ray.get_runtime_context().gcs_address,
        has_token=os.environ.get(AUTH_MODE) == TOKEN,
        url=f"http://{spec.host}:{spec.port}",
        pid=os.getpid(),
    )
    try:
        serve.run(app, name=spec.name, route_prefix="/", logging_config=LOGGING)
        record.write()
        yield record
    except RuntimeError as error:
        raise FailedError(f"the service {spec.name!r} did not come up: {error}") from error
    except KeyboardInterrupt:  # what listens for signals may come to this one later than the main thread
        last_resort.set(after_s=GRACE.first_s, status=130, message=GRACE.message)
        raise
    finally:
        last_resort.set(after_s=GRACE.first_s, status=1, message=GRACE.message)
        record.remove()
        serve.delete(spec.name)
        if not was_running:
            serve.shutdown()  # type: ignore[no-untyped-call]


def _start_proxy(spec: ServiceSpec) -> bool:
    """Starts Serve with its HTTP proxy; whether it was there before. There is one proxy a cluster, and Serve ignores a second address
    without a word: so what it listens on is read back, which has no public way.

    Raises:
        UsageError: it cannot listen there, listens on another address, or another service answers there.
    """
    was_running = serve_http_options() is not None
    try:
        serve.start(
            proxy_location="HeadOnly", http_options={"host": spec.host, "port": spec.port}, logging_config=LOGGING
        )
    except RayTaskError as error:
        if not was_running:
            serve.shutdown()  # type: ignore[no-untyped-call]
        raise UsageError(f"http: {_cannot_listen(spec, 'the head of the cluster', error.cause)}") from error
    config = serve_http_options()
    assert config is not None, "Serve was started"
    if (config.host, config.port) != (spec.host, spec.port):
        raise UsageError(
            f"Ray Serve on this cluster listens on {config.host}:{config.port}, and on nothing else as long as it runs; http was "
            f"{spec.host}:{spec.port}: use that address, or another cluster"
        )
    others = [name for name in serve.status().applications if name != spec.name]
    if others:
        raise UsageError(
            f"the service {others[0]!r} answers at {config.host}:{config.port} on this cluster: end it, or use another cluster"
        )
    return was_running


def _check_free(service: LoadedService) -> None:
    """Raises SpecError if the spec's host and port cannot be listened at on this machine."""
    spec = service.spec
    try:
        family, kind, _, _, address = socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except (OSError, ValueError) as error:  # a ValueError is of a name that no host can have
        raise SpecError([service.places.problem(("http",), _cannot_listen(spec, "this machine", error))]) from error


def _cannot_listen(spec: ServiceSpec, who: str, why: BaseException) -> str:
    return f"{who} cannot listen on {spec.host}:{spec.port} ({why}); give an address of it and a port that no other program has"


def _watch(name: str) -> None:
    """Never returns; raises an error when another process ends the service, or it cannot be kept
    up."""
    while True:
        time.sleep(WATCH_S)
        app = serve.status().applications.get(name)
        if app is None or app.status in LOST:
            raise FailedError(
                f"the service {name!r} is gone" if app is None else f"the service {name!r} is lost: {app.message}"
            )


def _cpus_of(spec: ServiceSpec) -> int:
    """Logical CPUs of a cluster of our own, which never has so few that the engines take them all."""
    wanted = sum(
        (model.engine.max_replicas or model.engine.replicas)
        * model.engine.tensor_parallel_size
        * engine_cpus(model.engine)
        for model in spec.models
    )
    return max(num_cores(), math.ceil(wanted) + LOCAL_SPARE_CPUS)
