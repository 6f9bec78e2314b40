"""Every private name of Ray that is used, each for what no public one does. Written for Ray 2.60.

Nothing else imports `ray._private`, `ray._common` or an attribute of Ray's that begins with an underscore (ruff and a test see to it),
so a new release is tried here: `check_names` says in words what it lacks.
"""

import contextlib
import importlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ray.data import Dataset
    from ray.serve.schema import HTTPOptionsSchema

NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "where Ray keeps its files": ("ray._common.utils:get_default_system_temp_dir",),
    "the address of a cluster in Ray's own words": ("ray._private.services:canonicalize_bootstrap_address",),
    "the folder of a session's logs, and the socket of this node's raylet": ("ray._private.worker:_global_node",),
    "what a driver prints of a cluster's messages": ("ray._private.worker:print_to_stdstream",),
    "why a worker process ended": (
        "ray._private.state:state._connect_and_get_accessor",
        "ray.core.generated.gcs_pb2:WorkerTableData",
    ),
    "an execution of Ray Data that can be ended before its first block": (
        "ray.data:Dataset._create_executor",
        "ray.data:Dataset._build_bundle_iterator",
    ),
    "statistics of Ray Data that grow with every block": (
        "ray.data._internal.execution.streaming_executor:StreamingExecutor._topology",
        "ray.data._internal.execution.operators.map_operator:MapOperator._output_blocks_stats",
    ),
    "what Ray Data writes on a terminal": (
        "ray._private.log:PlainRayHandler",
        "ray.data._internal.logging:SessionFileHandler._handler",
    ),
    "where Ray Serve listens": ("ray.serve.context:_get_global_client",),
}
"""What is needed, and the names it takes: module:attribute."""


def check_names() -> list[str]:
    """What this release of Ray lacks, one sentence each; empty if all is there."""
    return [
        f"Ray has no {name} any more, which Millrace needs for {need}: find what does it now, in {__file__}"
        for need, names in NAMES.items()
        for name in names
        if not _is_there(name)
    ]


def _is_there(name: str) -> bool:
    module, _, path = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError:
        return False
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            return isinstance(found, type) and f"self.{attribute}" in inspect.getsource(found)
        found = getattr(found, attribute)
    return True


def default_temporary_folder() -> str:
    """Where Ray keeps its files on this machine, in a folder `ray`."""
    from ray._common.utils import get_default_system_temp_dir

    folder: str = get_default_system_temp_dir()  # type: ignore[no-untyped-call]
    return folder


def canonical_address(address: str) -> str | None:
    """HOST:PORT, by Ray's own search and its own name for this machine.

    Raises:
        ConnectionError, ValueError: there is no such cluster.
    """
    from ray._private.services import canonicalize_bootstrap_address

    return canonicalize_bootstrap_address(address)


def session_logs() -> Path | None:
    """The folder of the logs of the session that this process is connected to; None if it is connected to none of this machine."""
    from ray._private import worker

    return None if worker._global_node is None else Path(worker._global_node.get_logs_dir_path())


def raylet_socket() -> str:
    """The socket of this machine's raylet. This process is connected."""
    from ray._private import worker

    assert worker._global_node is not None, "a cluster is watched while this process is connected to it"
    return worker._global_node.raylet_socket_name


@contextlib.contextmanager
def driver_messages_to(write: Callable[[Mapping[str, Any]], None]) -> Iterator[None]:
    """Gives `write` each message (`pid`, `lines`, ...) that Ray would print on standard output of what its processes wrote."""
    from ray._private import worker

    def instead(message: Mapping[str, Any], ignore_prefix: bool) -> None:
        del ignore_prefix
        write(message)

    printed = worker.print_to_stdstream
    worker.print_to_stdstream = instead  # type: ignore[assignment]
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


@contextlib.contextmanager
def data_off_the_terminal() -> Iterator[None]:
    """The logger `ray.data` without its console handler; its file in Ray's session folder stays."""
    import ray.data  # noqa: F401 - makes the handlers
    from ray._private.log import PlainRayHandler

    logger = logging.getLogger("ray.data")
    consoles = [handler for handler in logger.handlers if isinstance(handler, PlainRayHandler)]
    for handler in consoles:
        logger.removeHandler(handler)
    try:
        yield
    finally:
        for handler in consoles:
            logger.addHandler(handler)
        _forget_session(logger)


def _forget_session(logger: logging.Logger) -> None:
    """Has the logger look for Ray's session folder anew: it would go on with that of a cluster that is gone."""
    for handler in logger.handlers:
        to_session: logging.Handler | None = getattr(handler, "_handler", None)
        if to_session is not None:
            to_session.close()
            handler._handler = None  # type: ignore[attr-defined]


def dead_workers() -> list[Any]:
    """Worker processes that have ended, as the cluster's control store has them: the public state API answers only where there is a
    dashboard."""
    from ray._private import state
    from ray.core.generated.gcs_pb2 import WorkerTableData  # type: ignore[attr-defined]

    table = state.state._connect_and_get_accessor().get_worker_table()
    workers = [WorkerTableData.FromString(each) for each in table]
    return [worker for worker in workers if not worker.is_alive]


class StartedGraph:
    """The execution of a dataset: its bundles as they come, and a way to end it at any time.

    `Dataset.iter_internal_ref_bundles` hands out its executor after the first block only: too late to end a run whose engines never
    come up.
    """

    def __init__(self, dataset: "Dataset") -> None:
        self._executor = dataset._create_executor()
        self.bundles: Iterable[Any] = dataset._build_bundle_iterator(self._executor)

    def end(self) -> None:
        """Cancels the tasks and kills the actors."""
        self._executor.shutdown(force=True)

    def forget_block_statistics(self) -> None:
        """Ray Data keeps about 1 kB on every block of every operator for `Dataset.stats()`, which would grow with the corpus."""
        for operator in self._executor._topology or ():
            statistics = getattr(operator, "_output_blocks_stats", None)
            if statistics:
                statistics.clear()


def serve_http_options() -> "HTTPOptionsSchema | None":
    """Where Ray Serve listens on the cluster that is connected; None if it does not run there."""
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config
