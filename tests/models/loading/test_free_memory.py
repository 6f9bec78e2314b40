"""How much memory is left: the machine's, or the container's."""

from pathlib import Path

import pytest

from models.errors import ConfigError
from models.loading import free_memory as module
from models.loading.free_memory import free_memory

MEMINFO = "MemTotal:        900 kB\nMemAvailable:    300 kB\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(module, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    return tmp_path


def limit(system: Path, most: str, used: int, files: int) -> None:
    (system / "memory.max").write_text(f"{most}\n")
    (system / "memory.current").write_text(f"{used}\n")
    (system / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")


def test_this_machine_has_memory() -> None:
    assert 2**20 < free_memory() < 2**50


def test_without_a_container_the_kernel_says(system: Path) -> None:
    assert free_memory() == 300 * 1024
    limit(system, "max", 5, 5)
    assert free_memory() == 300 * 1024


@pytest.mark.parametrize(
    ("most", "used", "files", "free"), [(5000, 4000, 500, 1500), (5000, 6000, 0, 0), (2**40, 5, 5, 307200)]
)
def test_a_container_has_what_its_limit_leaves(system: Path, most: int, used: int, files: int, free: int) -> None:
    limit(system, str(most), used, files)
    assert free_memory() == free


def test_a_system_that_does_not_say_is_an_error(system: Path) -> None:
    (system / "meminfo").write_text("MemTotal: 900 kB\n")
    with pytest.raises(ConfigError, match="set cache_bytes"):
        free_memory()
