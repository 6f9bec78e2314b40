"""How much memory a process could still take."""

from pathlib import Path

import torch

from models.errors import ConfigError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a GPU, or on this machine."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else free_memory()


def free_memory() -> int:
    """Bytes of memory this machine could still give out, or this container where that is less.

    Raises:
        ConfigError: the system does not say.
    """
    for line in _MEMINFO.read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
            left = _left_in_container()
            return free if left is None else min(free, left)
    raise ConfigError("/proc/meminfo does not say how much memory is free; set cache_bytes")


def _left_in_container() -> int | None:
    """What the control group's limit leaves (version 2), if there is one; pages of files count as free, since they can be dropped."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:  # no such group
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
