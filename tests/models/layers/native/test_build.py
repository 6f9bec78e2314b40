"""The shared library of compiled kernels: made once for a machine, and what is said where it cannot be made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.layers.native import library
from models.layers.native.build import BuildError, built_library
from tests.helpers.compilers import needs_compiler

FAKE = """#!/bin/sh
[ "$1" = --version ] && {{ echo fake {version}; exit; }}
echo built >> {log}
while [ "$1" != -o ]; do shift; done
sleep 0.3
echo library > "$2"
"""


def fake_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, *, version: int = 1) -> Path:
    """A program that takes a compiler's arguments and says in a file that it was called."""
    program, log = folder / "c++", folder / "log"
    program.write_text(FAKE.format(log=log, version=version))
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    return log


def test_it_is_compiled_once_for_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fake_compiler(tmp_path, monkeypatch)
    first = built_library(tmp_path / "cache")
    assert built_library(tmp_path / "cache") == first
    assert log.read_text().split() == ["built"]
    other = built_library(tmp_path / "cache", processor="x86-64-v3")
    fake_compiler(tmp_path, monkeypatch, version=2)
    assert len({first, other, built_library(tmp_path / "cache")}) == 3
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == ["", ".so", ".so", ".so"]


def test_processes_that_ask_at_once_wait_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fake_compiler(tmp_path, monkeypatch)
    ask = "import sys; from pathlib import Path; from models.layers.native.build import built_library; built_library(Path(sys.argv[1]))"
    started = [subprocess.Popen([sys.executable, "-c", ask, tmp_path / "cache"]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    assert log.read_text().split() == ["built"]


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"no C\+\+ compiler; install g\+\+ or set CXX"):
        built_library(tmp_path / "cache")


@pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/c++"])
def test_a_compiler_that_fails_is_named(compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(BuildError, match=compiler):
        built_library(tmp_path / "cache")
    assert not list(tmp_path.rglob("*.so"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path, monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="file"):
        built_library(tmp_path / "file" / "cache")


def test_torch_computes_where_there_is_no_library(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "/bin/false")
    library.native_library.cache_clear()
    try:
        assert library.native_library() is None
    finally:
        library.native_library.cache_clear()
    assert "kernels are torch's, not compiled ones: /bin/false failed" in caplog.text


@needs_compiler
def test_the_source_is_compiled_without_a_warning(tmp_path: Path) -> None:
    from models.layers.native.build import FLAGS, SOURCE

    compiler = os.environ.get("CXX", "c++")
    strict = ["-march=native", "-Wall", "-Wextra", "-Werror"]
    found = subprocess.run(
        [compiler, *FLAGS, *strict, "-o", tmp_path / "x.so", *SOURCE.glob("*.cpp")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
