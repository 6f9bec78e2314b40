"""What Ray says goes to a file, and everything is given back afterwards."""

import logging
import os
import sys
import warnings
from pathlib import Path

import pytest
from ray._private import worker

from pipelines.cluster.ray_output import quiet_ray


def test_messages_of_the_cluster_go_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_ray() as chatter:
        worker.print_to_stdstream({"lines": ["a worker died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    assert chatter.path.read_text() == "(raylet) a worker died\n"
    assert capfd.readouterr() == ("", "")
    chatter.path.unlink()


def test_native_messages_go_to_the_log_while_the_door_is_shut(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_ray() as chatter:
        with chatter.native_stderr():
            os.write(2, b"from native code\n")
        os.write(2, b"from others\n")
    assert chatter.path.read_text() == "from native code\n"
    assert capfd.readouterr().err == "from others\n"
    chatter.path.unlink()


def test_ray_data_speaks_to_its_file_only() -> None:
    import ray.data  # noqa: F401 - makes the handlers

    handlers = list(logging.getLogger("ray.data").handlers)
    with quiet_ray():
        inside = list(logging.getLogger("ray.data").handlers)
    lost = {type(handler).__name__ for handler in handlers if handler not in inside}
    assert lost == {"PlainRayHandler"}
    assert set(logging.getLogger("ray.data").handlers) == set(handlers)


def test_warnings_of_ray_alone_are_dropped() -> None:
    with warnings.catch_warnings(record=True) as seen, quiet_ray():
        warnings.filterwarnings("always", module="pipelines")
        warnings.warn_explicit("theirs", UserWarning, "f", 1, module="ray.data.context")
        warnings.warn_explicit("ours", UserWarning, "f", 1, module="pipelines.run")
    assert [str(warning.message) for warning in seen] == ["ours"]


def test_an_empty_log_is_removed() -> None:
    printer, stderr = worker.print_to_stdstream, sys.stderr
    with quiet_ray() as chatter:
        assert Path(chatter.path).exists()
    assert not chatter.path.exists()
    assert worker.print_to_stdstream is printer
    assert sys.stderr is stderr
