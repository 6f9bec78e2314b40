"""What a Ray cluster of our own needs of this machine, looked at before anything starts: a folder for its sockets and logs, and room
in shared memory for what travels between its processes.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

from models.checkpoint.byte_text import byte_text
from pipelines.cluster.ray_private import default_temporary_folder
from pipelines.errors import ClusterError

MAX_SOCKET_PATH_BYTES: Final = 107
"""Of a path, by Linux (unix(7)); the terminating null is the 108th."""

MIN_SHARED_BYTES: Final = 256 << 20

_LONGEST_SOCKET: Final = "ray/session_2026-12-31_23-59-59_999999_{pid}/sockets/plasma_store"
_SHARED_MEMORY: Final = "/dev/shm"
_REMEDY: Final = "set RAY_TMPDIR to a short folder that can be written, such as /tmp"


def check_local_place() -> None:
    """Looks at the temporary folder and the shared memory that a cluster of our own would have.

    Raises:
        ClusterError: it could not run there; the text says what to do.
    """
    folder = default_temporary_folder()
    if not Path(folder).is_absolute():  # its processes have working folders of their own
        raise ClusterError(f"the temporary folder {folder!r} is no absolute path; {_REMEDY}")
    check_socket_paths(folder)
    _check_writable(folder)
    if not os.environ.get("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"):
        check_shared_memory(_SHARED_MEMORY)


def check_socket_paths(folder: str, *, pid: int | None = None) -> None:
    """Raises:
    ClusterError: the sockets of a cluster that keeps its files under `folder` would have paths that are too long.
    """
    longest = f"{folder}/{_LONGEST_SOCKET.format(pid=pid or os.getpid())}"
    excess = len(os.fsencode(longest)) - MAX_SOCKET_PATH_BYTES
    if excess > 0:
        raise ClusterError(
            f"the temporary folder {folder!r} is {excess} bytes too long for the sockets of a Ray cluster; {_REMEDY}"
        )


def _check_writable(folder: str) -> None:
    try:
        Path(folder, "ray").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=Path(folder, "ray")) as file:
            file.write(b"\0" * 65536)
            file.flush()
    except OSError as error:
        raise ClusterError(
            f"a Ray cluster cannot keep its files in the temporary folder {folder!r} ({error.strerror or error}); {_REMEDY}"
        ) from error


def check_shared_memory(folder: str) -> None:
    """Raises:
    ClusterError: there is too little room for the blocks that travel between the processes of a cluster.
    """
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < MIN_SHARED_BYTES:
        raise ClusterError(
            f"{folder} has {byte_text(free)} free, and a run needs {byte_text(MIN_SHARED_BYTES)}: give the container more "
            "(docker run --shm-size=1g; in Kubernetes an emptyDir with medium: Memory), remove what fills it, or set "
            "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE=1 to use the temporary folder, which is slow"
        )
