"""What a cluster of our own needs of the machine, refused with the remedy. Ray's own check says which paths are too long."""

import os
from pathlib import Path

import pytest
from ray._private.utils import validate_socket_filepath

from pipelines.cluster.local_place import check_local_place, check_shared_memory, check_socket_paths
from pipelines.errors import ClusterError

SOCKET = "{folder}/ray/session_2026-11-27_10-36-27_634725_{pid}/sockets/plasma_store"


@pytest.mark.parametrize("pid", [7, 31337, 4194304])
def test_the_longest_folder_is_the_one_whose_sockets_ray_takes(pid: int) -> None:
    accepted = []
    for length in range(10, 90):
        folder = "/" + "f" * (length - 1)
        try:
            validate_socket_filepath(SOCKET.format(folder=folder, pid=pid))
        except OSError:
            with pytest.raises(ClusterError, match=r"too long for the sockets .* set RAY_TMPDIR to a short folder"):
                check_socket_paths(folder, pid=pid)
        else:
            check_socket_paths(folder, pid=pid)
            accepted.append(length)
    assert 10 < len(accepted) < 70


def test_bytes_count_and_not_characters() -> None:
    with pytest.raises(ClusterError, match="bytes too long"):
        check_socket_paths("/" + "é" * 30, pid=31337)


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_that_cannot_be_written_is_refused(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a file there is no folder, for root either."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    (tmp_path / "f").touch()
    link = Path("/tmp") / f"mr-{os.getpid()}-{variable}"
    link.symlink_to(tmp_path / "f")  # tmp_path itself may be too long
    monkeypatch.setenv(variable, f"{link}/below")
    with pytest.raises(ClusterError, match=r"/below' .*Not a directory.*set RAY_TMPDIR to a short folder"):
        check_local_place()
    link.unlink()


@pytest.mark.parametrize("folder", ["", "tmp", "./tmp"])
def test_a_folder_that_depends_on_where_one_stands_is_refused(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(ClusterError, match="is no absolute path; set RAY_TMPDIR"):
        check_local_place()


def test_shared_memory_without_room_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs("/")
    sizes = {"f_frsize": 4096, "f_bavail": (64 << 20) // 4096}
    small = os.statvfs_result([sizes.get(name, getattr(found, name)) for name in _fields(found)])
    monkeypatch.setattr(os, "statvfs", lambda folder: small)
    with pytest.raises(ClusterError, match=r"/dev/shm has 67\.1 MB free.*--shm-size=1g"):
        check_shared_memory("/dev/shm")


def _fields(found: os.statvfs_result) -> list[str]:
    return [name for name in found.__match_args__ if name != "f_fsid"]
