"""The shared library: compiled once for a machine and a state of the source, and kept in the user's cache folder."""

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

SOURCE: Final = Path(__file__).parent / "source"
FLAGS: Final = ("-std=c++17", "-O3", "-fopenmp", "-shared", "-fPIC")
TIMEOUT_S: Final = 300.0


class BuildError(Exception):
    """There is no library; the text says why."""


def built_library(cache: Path | None = None, *, processor: str = "native") -> Path:
    """The library's file, compiled if it is not in the `cache` folder yet, for this machine or for a `processor` by the name
    that the compiler has for it. Processes that ask at once wait for one of them.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise BuildError("there is no C++ compiler; install g++ or set CXX")
    flags = (*FLAGS, f"-march={processor}")
    try:
        folder = cache or _cache_folder()
        path = folder / f"{_key(compiler, flags)}.so"
    except (OSError, RuntimeError) as error:  # no home, or no such program
        raise BuildError(str(error)) from error
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _compile([compiler, *flags], path)
    except OSError as error:
        raise BuildError(f"{folder} cannot be written: {error}") from error
    return path


def _compile(command: Sequence[str], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        arguments = [*command, "-o", str(made), *map(str, sorted(SOURCE.glob("*.cpp")))]
        logger.info("compiling kernels for this machine, once")
        try:
            subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{command[0]} took over {TIMEOUT_S:.0f} s") from error
        except subprocess.CalledProcessError as error:
            raise BuildError(f"{command[0]} failed: {error.stderr.strip()[-2000:]}") from error
        made.replace(path)


def _key(compiler: str, flags: Sequence[str]) -> str:
    """A name for what would be compiled: by the source, the flags, the compiler and what this processor can do."""
    found = hashlib.sha256()
    for file in sorted(SOURCE.iterdir()):
        found.update(file.name.encode() + b"\0" + file.read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    for part in (" ".join(flags).encode(), version, platform.machine().encode(), _processor()):
        found.update(b"\0" + part)
    return found.hexdigest()[:32]


def _processor() -> bytes:
    """The first processor's model and flags, as Linux tells them; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
    except OSError:
        return b""
    return b"\n".join(line for line in lines if line.partition(b"\t")[0] in (b"model name", b"flags", b"Features"))


def _cache_folder() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "millrace/native"
